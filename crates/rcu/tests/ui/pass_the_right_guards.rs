//! The right guards, of each kind, and what may be done with them.

use gracepoint_rcu::{Domain, RcuCell, ReadGuard, domain};

domain! {
    static ROUTES: Routes = "routes";
}

static PLAIN: Domain = Domain::new("plain");

fn by_any<D>(cell: &RcuCell<'_, u32, D>, guard: &impl ReadGuard<D>) -> u32 {
    *cell.load(guard)
}

fn main() {
    let (plain, typed) = (RcuCell::new(&PLAIN, 1), RcuCell::new(&ROUTES, 2));
    assert_eq!(by_any(&plain, &PLAIN.read()) + by_any(&typed, &ROUTES.read()), 3);
    let owned = PLAIN.read_owned("owner");
    let value = plain.load(&owned);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(*plain.load(&owned), *value));
    });
    let moved = ROUTES.read_owned("another");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let guard = moved;
            assert_eq!(*typed.load(&guard), 2);
        });
    });
}
