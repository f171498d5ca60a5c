//! [`TypedDomain`] and [`domain!`](crate::domain!): a domain with a type of its own.
//!
//! The type is a tag on the domain's guards and cells, and nothing more: a cell still compares the
//! guard's address with its domain, because nothing stops a program from making two domains with one
//! tag. So what is safe rests on the comparison, and the tag moves the mistake to the compiler.

use crate::domain::Domain;
use crate::guard::{Any, Guard, OwnedGuard};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// A [`Domain`] whose guards and cells have a type that no other domain's have. Made by [`domain!`](crate::domain!).
///
/// All of [`Domain`] is there by dereference; [`read`](Self::read) and [`read_owned`](Self::read_owned) give
/// guards of its type.
pub struct TypedDomain<D> {
    domain: Domain,
    tag: PhantomData<fn() -> D>,
}

impl<D> TypedDomain<D> {
    /// A domain whose guards and cells have the tag `D`, which should be no other domain's: that is what
    /// [`domain!`](crate::domain!) sees to.
    ///
    /// ```
    /// use gracepoint_rcu::TypedDomain;
    ///
    /// enum Routes {}
    /// static ROUTES: TypedDomain<Routes> = TypedDomain::new("routes");
    /// drop(ROUTES.read());
    /// ```
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { domain: Domain::new(name), tag: PhantomData }
    }

    /// [`Domain::with_thread`], with a type of its own.
    ///
    /// ```
    /// use gracepoint_rcu::{RcuCell, TypedDomain};
    ///
    /// enum Routes {}
    /// static ROUTES: TypedDomain<Routes> = TypedDomain::with_thread("routes");
    /// let table = RcuCell::new(&ROUTES, vec!["here"]);
    /// table.replace(vec!["there"]); // the first is dropped on the domain's thread, soon
    /// ```
    #[must_use]
    pub const fn with_thread(name: &'static str) -> Self {
        Self { domain: Domain::with_thread(name), tag: PhantomData }
    }

    /// [`Domain::read`], with a guard of this domain's type. The example is at [`domain!`](crate::domain!).
    #[inline]
    #[track_caller]
    pub fn read(&self) -> Guard<'_, D> {
        self.domain.read().of_type()
    }

    /// [`Domain::read_owned`], with a guard of this domain's type. The example is at [`domain!`](crate::domain!).
    #[inline]
    #[track_caller]
    pub fn read_owned(&self, owner: &'static str) -> OwnedGuard<'_, D> {
        self.domain.read_owned(owner).of_type()
    }
}

impl<D> Deref for TypedDomain<D> {
    type Target = Domain;

    #[inline]
    fn deref(&self) -> &Domain {
        &self.domain
    }
}

impl<D> fmt::Debug for TypedDomain<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.domain.fmt(f)
    }
}

/// A domain that cells can be made for: [`Domain`] or [`TypedDomain`].
pub trait AnyDomain: sealed::HasDomain {
    /// The tag of its guards and cells.
    type Tag;
}

impl AnyDomain for Domain {
    type Tag = Any;
}

impl<D> AnyDomain for TypedDomain<D> {
    type Tag = D;
}

mod sealed {
    use crate::domain::Domain;

    pub trait HasDomain {
        #[doc(hidden)]
        fn plain(&self) -> &Domain;
    }

    impl HasDomain for Domain {
        fn plain(&self) -> &Domain {
            self
        }
    }

    impl<D> HasDomain for super::TypedDomain<D> {
        fn plain(&self) -> &Domain {
            self
        }
    }
}

/// Declares a domain with a type of its own, so that another domain's guard does not open its cells:
/// that is an error of the compiler, where plain [`Domain`]s find it when the program runs, and panic.
///
/// ```
/// use gracepoint_rcu::{RcuCell, domain};
///
/// domain! {
///     /// Readers of the routing table.
///     pub static ROUTES: Routes = "routes";
///     static USERS: Users = "users";
/// }
///
/// let table = RcuCell::new(&ROUTES, vec!["here"]);
/// let guard = ROUTES.read();
/// assert_eq!(table.load(&guard), &["here"]);
///
/// struct Router {
///     table: RcuCell<'static, Vec<&'static str>, Routes>,
/// }
/// # drop(guard);
/// let router = Router { table };
/// assert_eq!(router.table.load(&ROUTES.read_owned("a task")).len(), 1);
/// # let _ = &USERS;
/// ```
///
/// With the wrong guard it does not compile:
///
/// ```compile_fail,E0277
/// # use gracepoint_rcu::{RcuCell, domain};
/// # domain! {
/// #     pub static ROUTES: Routes = "routes";
/// #     static USERS: Users = "users";
/// # }
/// let table = RcuCell::new(&ROUTES, vec!["here"]);
/// let guard = USERS.read();
/// table.load(&guard);
/// ```
///
/// nor with that of a plain domain:
///
/// ```compile_fail,E0277
/// # use gracepoint_rcu::{Domain, RcuCell, domain};
/// # domain! { static ROUTES: Routes = "routes"; }
/// # static PLAIN: Domain = Domain::new("plain");
/// let table = RcuCell::new(&ROUTES, vec!["here"]);
/// table.load(&PLAIN.read_owned("a task"));
/// ```
#[macro_export]
macro_rules! domain {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: $tag:ident = $text:expr;)*) => {$(
        #[doc = concat!("The type of guards and cells of [`", stringify!($name), "`].")]
        #[derive(Debug)]
        $vis enum $tag {}

        $(#[$meta])*
        $vis static $name: $crate::TypedDomain<$tag> = $crate::TypedDomain::new($text);
    )*};
}
