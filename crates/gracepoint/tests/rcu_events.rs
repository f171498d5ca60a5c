//! A domain of the program's own, and its grace periods as events.
#![cfg(target_os = "linux")]

use gracepoint::Tracer;
use gracepoint_rcu::Domain;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

static DOMAIN: Domain = Domain::new("routes");

#[test]
fn grace_periods_are_events() {
    DOMAIN.observe(gracepoint::rcu_events());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let probe = Tracer::global().tracepoints("rcu:*").attach(move |view| {
        let number = |name| view.get(name).and_then(|value| value.as_u64());
        assert_eq!(
            view.get("domain").and_then(|name| name.as_str().map(str::to_owned)).unwrap(),
            "routes"
        );
        let text = view.get("message").map(|message| message.to_string());
        let told = (view.name().to_string(), number("number").or(number("count")), text);
        seeing.lock().unwrap().push(told);
    });
    let probe = probe.expect("they are declared");
    DOMAIN.synchronize().expect("not inside a section");
    DOMAIN.call(|| panic!("as it must"));
    DOMAIN.barrier().expect("not inside a section");
    let told = std::mem::take(&mut *seen.lock().unwrap());
    let [first, second, ..] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (first.0.as_str(), second.0.as_str()),
        ("rcu:grace_period_begin", "rcu:grace_period_end")
    );
    assert_eq!(first.1, second.1, "one grace period: {told:?}");
    let ran = told.iter().find(|(name, ..)| name == "rcu:callbacks");
    assert!(ran.is_some_and(|(_, count, _)| *count >= Some(1)), "{told:?}");
    let panicked = told.iter().find(|(name, ..)| name == "rcu:callback_panic");
    assert!(
        panicked.is_some_and(|(.., text)| text.as_ref().unwrap().contains("as it must")),
        "{told:?}"
    );
    let stalled = || {
        let told = std::mem::take(&mut *seen.lock().unwrap());
        told.into_iter().any(|(name, number, _)| name == "rcu:stall" && number.is_some())
    };
    std::thread::scope(|scope| {
        let (tell, wait) = mpsc::channel::<()>();
        let (inside, is_inside) = mpsc::channel();
        scope.spawn(move || {
            let _section = DOMAIN.read();
            inside.send(()).unwrap();
            let _ = wait.recv();
        });
        is_inside.recv().unwrap();
        DOMAIN.stalled_after(Duration::ZERO);
        let _cookie = DOMAIN.start_poll();
        while !stalled() {
            DOMAIN.poll();
        }
        drop(tell);
    });
    drop(probe);
    seen.lock().unwrap().clear();
    DOMAIN.synchronize().expect("not inside a section");
    assert!(seen.lock().unwrap().is_empty(), "off is off");
}
