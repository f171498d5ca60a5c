//! Nor to those of a plain one, owned ones included.

use gracepoint_rcu::{Domain, RcuCell, domain};

domain! {
    static ROUTES: Routes = "routes";
}

static PLAIN: Domain = Domain::new("plain");

fn main() {
    let table = RcuCell::new(&ROUTES, 1);
    table.load(&PLAIN.read_owned("owner"));
}
