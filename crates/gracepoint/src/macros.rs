//! `trace!`, `span!` and `function_block!`. Each expansion is one site: a static, and the code that the architecture's
//! `__gp1_site!` emits.

/// Records an event, if somebody has switched it on.
///
/// The fields are written as in a struct literal. They are evaluated only while the event is on,
/// so they may be expensive and must not be relied upon for their effects.
///
/// ```
/// #[derive(gracepoint::Event)]
/// struct Accepted { port: u16 }
/// #[derive(gracepoint::Event)]
/// struct Idle;
///
/// fn accept(port: u16) {
///     gracepoint::trace!(Accepted { port });
///     gracepoint::trace!(Idle);
/// }
/// accept(80);
/// ```
#[macro_export]
macro_rules! trace {
    ($($event:ident)::+ { $($fields:tt)* }) => {{
        static __GP1_SITE: $crate::__private::Site = $crate::__private::Site::new(
            <$($event)::+ as $crate::__private::Event>::KEY,
            $crate::__private::SiteKind::Event,
            ::core::file!(),
            ::core::line!(),
        );
        if $crate::__gp1_site!(__GP1_SITE) {
            $crate::__private::Event::emit($($event)::+ { $($fields)* });
        }
    }};
    ($($event:ident)::+) => {
        $crate::trace!($($event)::+ {})
    };
}

/// A block that is traced as a function is: for closures, and for parts of functions.
///
/// The name stands behind that of the function around it: `kv::load::parse` below. `return` and `?` are those of that
/// function or closure, and end the block. Off it is a NOP at either end, as with
/// [`#[function]`](macro@crate::function).
///
/// ```
/// fn load(lines: &[&str]) -> Vec<u32> {
///     let parse = |line: &&str| gracepoint::function_block!("parse", { line.parse().ok() });
///     lines.iter().filter_map(parse).collect()
/// }
/// assert_eq!(load(&["1", "x", "3"]), [1, 3]);
/// ```
#[macro_export]
macro_rules! function_block {
    ($name:literal, $body:block) => {{
        fn __gp1_name() -> &'static str {
            ::core::any::type_name_of_val(&__gp1_name)
        }
        static __GP1_POINT: $crate::__private::Point =
            $crate::__private::Point::of_block(__gp1_name, $name, ::core::file!(), ::core::line!());
        static __GP1_KEY: $crate::__private::Key =
            $crate::__private::Key::of_function(&__GP1_POINT);
        static __GP1_SITE: $crate::__private::Site = $crate::__private::Site::new(
            &__GP1_KEY,
            $crate::__private::SiteKind::Function,
            ::core::file!(),
            ::core::line!(),
        );
        $crate::__gp1_call!();
        $body
    }};
}

/// The call of a function whose `__GP1_POINT` and `__GP1_SITE` stand before: a site here, and one wherever the block
/// that this stands in is left.
#[doc(hidden)]
#[macro_export]
macro_rules! __gp1_call {
    () => {
        struct __Gp1Call($crate::__private::Call);
        impl ::core::ops::Drop for __Gp1Call {
            #[inline(always)]
            fn drop(&mut self) {
                if $crate::__gp1_site!(__GP1_SITE) {
                    self.0.end(&__GP1_POINT);
                }
            }
        }
        let __gp1_call = __Gp1Call($crate::__private::Call::new());
        if $crate::__gp1_site!(__GP1_SITE) {
            __gp1_call.0.begin(&__GP1_POINT);
        }
    };
}

/// Begins a span; it ends when the returned [`Span`](crate::Span) is dropped.
///
/// Bind it to a name (`let _span = …`); `let _ = …` would end it at once. The fields are those of
/// the begin. The guard may be held across `.await` and dropped on another thread.
///
/// ```
/// #[derive(gracepoint::Event)]
/// struct Query<'a> { table: &'a str }
///
/// fn query(table: &str) -> usize {
///     let _span = gracepoint::span!(Query { table });
///     table.len()
/// }
/// query("users");
/// ```
#[macro_export]
macro_rules! span {
    ($($event:ident)::+ { $($fields:tt)* }) => {{
        static __GP1_SITE: $crate::__private::Site = $crate::__private::Site::new(
            <$($event)::+ as $crate::__private::Event>::KEY,
            $crate::__private::SiteKind::Span,
            ::core::file!(),
            ::core::line!(),
        );
        if $crate::__gp1_site!(__GP1_SITE) {
            $crate::Span::begin(&$($event)::+ { $($fields)* })
        } else {
            $crate::Span::off()
        }
    }};
    ($($event:ident)::+) => {
        $crate::span!($($event)::+ {})
    };
}
