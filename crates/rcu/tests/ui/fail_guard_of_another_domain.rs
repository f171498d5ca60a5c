//! Cells of a domain with a type of its own do not open to the guards of another.

use gracepoint_rcu::{RcuCell, domain};

domain! {
    static ROUTES: Routes = "routes";
    static USERS: Users = "users";
}

fn main() {
    let table = RcuCell::new(&ROUTES, 1);
    let guard = USERS.read();
    table.load(&guard);
}
