//! Sites where nothing can be traced: other systems, or the feature `off`.

/// Is this site on? Never; the compiler removes what depends on it.
#[doc(hidden)]
#[macro_export]
macro_rules! __gp1_site {
    ($site:path) => {
        false
    };
}
