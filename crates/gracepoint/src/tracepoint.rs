//! Attaching probes: to the tracepoint of an event type, or to all tracepoints that match.

use crate::error::Error;
use crate::event::{Event, EventDesc};
use crate::hooks::{Hook, UseHook};
use crate::key::{Call, Entry, Key, SpanPoint};
use crate::owner::Tracer;
use crate::probe::{Body, Captured, Head, Place, Probe};
use crate::tracer::{self, Candidate, KeyId};
use crate::view::{Encode, View};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

/// Name and priority of a probe to be.
#[derive(Clone, Default)]
struct Settings {
    name: Option<String>,
    priority: i32,
}

/// The tracepoint of an event type, with the settings of a probe that is about to be attached.
///
/// [`attach`](Self::attach) and [`attach_spans`](Self::attach_spans) come last; what they return detaches
/// when it is dropped.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// #[derive(gracepoint::Event)]
/// #[event(name = "doc.tracepoint:get")]
/// struct Get<'a> { key: &'a str, hit: bool }
///
/// let probe = Get::tracepoint()
///     .name("misses")
///     .priority(10) // before those with less; the default is 0
///     .attach(|get: &Get<'_>| {
///         if !get.hit {
///             println!("no {}", get.key);
///         }
///     });
/// gracepoint::trace!(Get { key: "17", hit: false });
/// # drop(probe.expect("sites can be switched here"));
/// # }
/// ```
///
/// An event with several lifetimes has one of them in a probe, so it must be covariant in all. One that is not
/// does not compile (with one lifetime it would):
///
/// ```compile_fail
/// #[derive(gracepoint::Event)]
/// struct Bad<'a, 'b> {
///     one: &'b str,
///     #[event(debug)]
///     cell: std::cell::Cell<&'a str>,
/// }
/// ```
///
/// A probe runs on the thread of the hit, in its read section, and may block or sleep: then memory that
/// waits for the section's end is kept, and nobody else is held up. It may hit tracepoints; at most four
/// probes are nested on a thread, and hits further in are counted ([`Probe::skipped`]). It runs wherever
/// the program hits the tracepoint: in signal handlers (where it must do nothing that a handler may not),
/// in destructors of thread-locals, before `main` and after it, in forked children. `errno` is not kept.
#[must_use = "nothing is attached before `attach`"]
pub struct Tracepoint<'t, E> {
    tracer: &'t Tracer,
    settings: Settings,
    event: PhantomData<fn() -> E>,
}

impl<'t, E: Event> Tracepoint<'t, E> {
    pub(crate) fn new(tracer: &'t Tracer) -> Tracepoint<'t, E> {
        Tracepoint { tracer, settings: Settings::default(), event: PhantomData }
    }

    /// A name for the probe, for reports.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// Probes of a higher priority are called first, those of the same in the order in which they were
    /// attached. Sessions have 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.settings.priority = priority;
        self
    }

    /// Attaches a probe: it is called for each event, and for each begin of a span.
    ///
    /// Not for signal handlers.
    ///
    /// # Errors
    /// When the system does not let sites be switched, or from inside a probe that interrupted a change of
    /// probes on the same thread. Then nothing is attached.
    pub fn attach<F>(self, probe: F) -> Result<Probe, Error>
    where
        F: for<'x> Fn(&E::At<'x>) + Send + Sync + 'static,
    {
        self.attach_call(probe, call_event::<E, F>, None)
    }

    /// Attaches a probe in the place of another, of whatever kind, which is detached from all of its tracepoints
    /// as by [`Probe::detach`]; `probe` is then the new one. Every hit of this tracepoint calls one of them:
    /// where the old one is attached here there is no hit in between that calls neither or both.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// #[derive(gracepoint::Event)]
    /// struct Sent { bytes: u64 }
    ///
    /// let mut probe = Sent::tracepoint().attach(|sent| println!("{} bytes", sent.bytes))
    ///     .expect("sites can be switched here");
    /// Sent::tracepoint()
    ///     .replace(&mut probe, |sent| println!("{} KiB", sent.bytes >> 10))
    ///     .expect("not inside a change of probes");
    /// gracepoint::trace!(Sent { bytes: 4096 });
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`attach`](Self::attach); then the old probe is where it was.
    pub fn replace<F>(self, probe: &mut Probe, with: F) -> Result<(), Error>
    where
        F: for<'x> Fn(&E::At<'x>) + Send + Sync + 'static,
    {
        let new = self.attach_call(with, call_event::<E, F>, Some(probe))?;
        *probe = new; // the old one has been taken off
        Ok(())
    }

    /// Attaches a probe that is also told the ids of spans, and their ends.
    ///
    /// It may see the end of a span that began before it was attached. An end comes for each begin that it saw,
    /// on the thread where the [`Span`](crate::Span) is dropped, if it is still attached.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use gracepoint::Moment;
    ///
    /// #[derive(gracepoint::Event)]
    /// struct Query<'a> { table: &'a str }
    ///
    /// let probe = Query::tracepoint().attach_spans(|moment: Moment<'_, Query<'_>>| match moment {
    ///     Moment::Begin { event, id, .. } => println!("{id:x} begins in {}", event.table),
    ///     Moment::End { id, .. } => println!("{id:x} ends"),
    ///     _ => {}
    /// });
    /// drop(gracepoint::span!(Query { table: "keys" }));
    /// # drop(probe.expect("sites can be switched here"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_spans<F>(self, probe: F) -> Result<Probe, Error>
    where
        F: for<'x> Fn(Moment<'x, E::At<'x>>) + Send + Sync + 'static,
    {
        self.attach_call(probe, call_moment::<E, F>, None)
    }

    fn attach_call<F: Send + Sync + 'static>(
        self,
        f: F,
        call: Call,
        instead: Option<&Probe>,
    ) -> Result<Probe, Error> {
        let Settings { name, priority } = self.settings;
        let head = Head::new(self.tracer.id(), 1, name, priority);
        let body = Arc::new(One { head, key: E::KEY, captured: Captured::new(f) });
        let entry = Entry { call: Some(call), data: Arc::as_ptr(&body).cast() };
        tracer::add(body.clone(), vec![(E::KEY, entry)], instead.and_then(Probe::body))?;
        Ok(Probe::new(body))
    }

    /// A hook that is told `true` when the tracepoint's first probe or session comes, and `false` after the
    /// last has gone (hits may still be under way then). If there is one already, it is told so before
    /// this returns.
    ///
    /// It runs on the thread that makes the change (for a recorder, the agent's), before the first hit where
    /// no other thread changes the same at that moment, and under no lock: it may attach and detach. While
    /// a thread runs it, others that change the tracepoint do not wait: it is then told again. Calls
    /// alternate and never overlap. A hook that panics is not called again.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn on_use(self, changed: impl Fn(bool) + Send + Sync + 'static) -> Result<UseHook, Error> {
        let hook = tracer::hook(E::KEY, |used| Arc::new(Hook::new(Box::new(changed), used)))?;
        hook.settle();
        Ok(UseHook::new(hook, KeyId::of(E::KEY)))
    }
}

impl<E: Event> fmt::Debug for Tracepoint<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracepoint").field("event", &E::DESC.name()).finish_non_exhaustive()
    }
}

/// What [`Tracepoint::attach_spans`] is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Moment<'x, T> {
    /// A hit of `trace!`.
    #[non_exhaustive]
    Event {
        /// The event.
        event: &'x T,
    },
    /// A span begins.
    #[non_exhaustive]
    Begin {
        /// The event.
        event: &'x T,
        /// The span's id, never 0.
        id: u64,
        /// The id of the span around it.
        parent: Option<u64>,
    },
    /// A span ends.
    #[non_exhaustive]
    End {
        /// The id that it had at its begin.
        id: u64,
        /// As at its begin.
        parent: Option<u64>,
    },
}

/// A probe of one tracepoint, whose entry's data this is.
struct One<F> {
    head: Head,
    key: &'static Key,
    captured: Captured<F>,
}

impl<F: Send + Sync> Body for One<F> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn places(&self) -> Box<dyn Iterator<Item = Place> + '_> {
        let data = std::ptr::from_ref(self).cast();
        Box::new(std::iter::once(Place { key: KeyId::of(self.key), data }))
    }

    fn tracepoint(&self, _place: usize) -> String {
        self.key.desc.name()
    }

    fn len(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        size_of_val(self) + self.head.name().len()
    }

    unsafe fn drop_captured(&self) {
        // SAFETY: the caller's promise: no hit is inside, none comes.
        unsafe { self.captured.drop() };
    }
}

/// # Safety
/// `data` points to a `One<F>` that is not dropped while the read section lasts; `event` is null or
/// points to an event whose key is `E`'s.
unsafe fn call_event<E: Event, F>(data: *const (), event: *const (), _: *const SpanPoint) -> bool
where
    F: for<'x> Fn(&E::At<'x>) + Send + Sync,
{
    // SAFETY: the caller's promise.
    let body = unsafe { &*data.cast::<One<F>>() };
    // SAFETY: the caller's promise. `At` is the event's type with other lifetimes: with one lifetime, the
    // probe takes any, so the event's own; with several, they can all be shortened to one, since the
    // type is covariant (promised by `Event`).
    let Some(event) = (unsafe { event.cast::<E::At<'_>>().as_ref() }) else { return false };
    // SAFETY: dropped a grace period after the entry was taken away, so not in this section.
    let probe = unsafe { body.captured.get() };
    body.head.run(body.head.id, || probe(event));
    false
}

/// # Safety
/// As [`call_event`]; `span` is null or points to a span's ids, and is not null where `event` is.
unsafe fn call_moment<E: Event, F>(
    data: *const (),
    event: *const (),
    span: *const SpanPoint,
) -> bool
where
    F: for<'x> Fn(Moment<'x, E::At<'x>>) + Send + Sync,
{
    // SAFETY: the caller's promise.
    let body = unsafe { &*data.cast::<One<F>>() };
    // SAFETY: as in `call_event`.
    let event = unsafe { event.cast::<E::At<'_>>().as_ref() };
    // SAFETY: the caller's promise.
    let span = unsafe { span.as_ref() };
    let moment = match (event, span) {
        (Some(event), None) => Moment::Event { event },
        (Some(event), Some(span)) => Moment::Begin { event, id: span.id, parent: span.parent() },
        (None, Some(span)) => Moment::End { id: span.id, parent: span.parent() },
        (None, None) => return false,
    };
    // SAFETY: as in `call_event`.
    let probe = unsafe { body.captured.get() };
    body.head.run(body.head.id, || probe(moment)) && event.is_some() && span.is_some()
}

/// The tracepoints that match, with the settings of a probe for all of them. See [`Tracer::tracepoints`].
#[must_use = "nothing is attached before `attach`"]
pub struct Tracepoints<'t, M> {
    tracer: &'t Tracer,
    settings: Settings,
    matches: M,
}

impl<'t, M: FnMut(&EventDesc, &str) -> bool> Tracepoints<'t, M> {
    pub(crate) fn new(tracer: &'t Tracer, matches: M) -> Tracepoints<'t, M> {
        Tracepoints { tracer, settings: Settings::default(), matches }
    }

    /// As [`Tracepoint::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// As [`Tracepoint::priority`].
    pub fn priority(mut self, priority: i32) -> Self {
        self.settings.priority = priority;
        self
    }

    /// Attaches one probe to all of them: those of the objects that are loaded now. It sees spans begin and end,
    /// too. They are switched on together, in one batch.
    ///
    /// # Errors
    /// [`ErrorKind::NoMatch`](crate::ErrorKind::NoMatch), and as [`Tracepoint::attach`].
    pub fn attach<F>(self, probe: F) -> Result<Probe, Error>
    where
        F: Fn(&View<'_>) + Send + Sync + 'static,
    {
        self.attach_view(probe, None)
    }

    /// As [`Tracepoint::replace`]: the tracepoints that match now, in the place of those of the old probe. A hit of
    /// one that both are attached to calls one of them.
    ///
    /// # Errors
    /// As [`attach`](Self::attach); then the old probe is where it was.
    pub fn replace<F>(self, probe: &mut Probe, with: F) -> Result<(), Error>
    where
        F: Fn(&View<'_>) + Send + Sync + 'static,
    {
        let new = self.attach_view(with, Some(probe))?;
        *probe = new; // the old one has been taken off
        Ok(())
    }

    fn attach_view<F>(self, probe: F, instead: Option<&Probe>) -> Result<Probe, Error>
    where
        F: Fn(&View<'_>) + Send + Sync + 'static,
    {
        let Tracepoints { tracer, settings: Settings { name, priority }, mut matches } = self;
        let found = tracer.select(&mut matches)?;
        let head = Head::new(tracer.id(), found.len(), name, priority);
        let keys: Vec<&'static Key> = found.iter().map(|found| found.key).collect();
        let links = (head.id..).zip(found).map(|(id, found)| Link::new(id, found)).collect();
        let body = Arc::new(Many { head, links, captured: Captured::new(probe) });
        for link in &body.links {
            link.body.store(Arc::as_ptr(&body).cast_mut().cast(), Relaxed);
        }
        let entry = |link: &Link| Entry {
            call: Some(call_view::<F>),
            data: std::ptr::from_ref(link).cast(),
        };
        let entries = keys.into_iter().zip(body.links.iter().map(entry)).collect();
        tracer::add(body.clone(), entries, instead.and_then(Probe::body))?;
        Ok(Probe::new(body))
    }
}

impl<M> fmt::Debug for Tracepoints<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracepoints").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

/// A probe of many tracepoints.
struct Many<F> {
    head: Head,
    links: Box<[Link]>,
    captured: Captured<F>,
}

/// One of them: the data of the entry there.
struct Link {
    id: u64,
    /// The `Many<F>` that this is part of. Written before the link is shared; publishing it orders that.
    body: AtomicPtr<()>,
    key: KeyId,
    desc: &'static EventDesc,
    encode: Encode,
    name: Cow<'static, str>,
}

impl Link {
    fn new(id: u64, found: Candidate) -> Link {
        let Candidate { key, name } = found;
        let (desc, encode) = (key.desc, key.encode);
        let body = AtomicPtr::new(std::ptr::null_mut());
        Link { id, body, key: KeyId::of(key), desc, encode, name }
    }
}

impl<F: Send + Sync> Body for Many<F> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn places(&self) -> Box<dyn Iterator<Item = Place> + '_> {
        let place = |link: &Link| Place { key: link.key, data: std::ptr::from_ref(link).cast() };
        Box::new(self.links.iter().map(place))
    }

    fn tracepoint(&self, place: usize) -> String {
        self.links.get(place).map_or_else(String::new, |link| link.name.to_string())
    }

    fn len(&self) -> usize {
        self.links.len()
    }

    fn bytes(&self) -> usize {
        let own = |link: &Link| match &link.name {
            Cow::Borrowed(_) => 0,
            Cow::Owned(name) => name.capacity(),
        };
        let names: usize = self.links.iter().map(own).sum();
        size_of_val(self) + size_of_val(&*self.links) + self.head.name().len() + names
    }

    unsafe fn drop_captured(&self) {
        // SAFETY: the caller's promise: no hit is inside, none comes.
        unsafe { self.captured.drop() };
    }
}

/// # Safety
/// `data` points to a `Link` of a `Many<F>` that is not dropped while the read section lasts; `event` is
/// null or points to an event of the link's key; `span` is null or points to a span's ids.
unsafe fn call_view<F>(data: *const (), event: *const (), span: *const SpanPoint) -> bool
where
    F: Fn(&View<'_>) + Send + Sync,
{
    // SAFETY: the caller's promise.
    let link = unsafe { &*data.cast::<Link>() };
    // SAFETY: set before the link was shared, to the value that it is part of.
    let body = unsafe { &*link.body.load(Relaxed).cast::<Many<F>>() };
    // SAFETY: the caller's promise.
    let span = unsafe { span.as_ref() }.copied();
    // SAFETY: dropped a grace period after the entry was taken away, so not in this section.
    let probe = unsafe { body.captured.get() };
    let ran = body.head.run(link.id, || {
        // SAFETY: the event is the key's, whose `encode` and description these are, and outlives the hit.
        let view = unsafe { View::new(&link.name, link.desc, link.encode, event, span) };
        probe(&view);
    });
    ran && span.is_some() && !event.is_null()
}
