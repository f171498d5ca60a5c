//! What is traced.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::{Instrument, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

pub(crate) fn run(name: &str, n: u64) {
    match name {
        "server" => {
            gracepoint_tracing::init().expect("the agent starts");
            serve(n);
        }
        "server-beside-fmt" => beside_fmt(n),
        "first-hits" => first_hits(n),
        "tasks" => tasks(),
        "logs" => logs(),
        "killed" => killed(),
        "following" => crate::following::program(),
        "stuck" => crate::stuck::program(n),
        other => panic!("no program {other}"),
    }
}

/// An axum server as its documentation has it, and `n` requests over HTTP/1 and as many over HTTP/2.
fn serve(n: u64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let span = DefaultMakeSpan::new().level(Level::INFO);
        let app = Router::new()
            .route("/square/{n}", get(|Path(n): Path<u64>| async move { (n * n).to_string() }))
            .layer(TraceLayer::new_for_http().make_span_with(span));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        for http2 in [false, true] {
            let client: Client<_, Empty<Bytes>> =
                Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
            let requests: Vec<_> = (0..n)
                .map(|n| {
                    let (client, uri) = (client.clone(), format!("http://{address}/square/{n}"));
                    tokio::spawn(async move {
                        let answer = client.get(uri.parse().expect("a URI")).await.expect("answer");
                        let body = answer.into_body().collect().await.expect("a body").to_bytes();
                        assert_eq!(body, (n * n).to_string());
                    })
                })
                .collect();
            for request in requests {
                request.await.expect("no request panics");
            }
        }
    });
}

/// Counts events by name, as another layer sees them.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<BTreeMap<String, u64>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counting {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        *self.0.lock().unwrap().entry(meta.target().to_owned()).or_default() += 1;
    }
}

/// The same server with fmt and a layer that counts beside; prints what that has counted.
fn beside_fmt(n: u64) {
    let counting = Counting::default();
    let layer = gracepoint_tracing::layer();
    assert!(layer.inner().started().is_ok());
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::sink))
        .with(layer)
        .with(counting.clone())
        .init();
    serve(n);
    println!("{}", serde_json::to_string(&*counting.0.lock().unwrap()).expect("JSON"));
}

macro_rules! sites {
    ($($name:literal)*) => {
        [$({
            fn hit(n: u64) {
                tracing::info!(name: $name, target: "first", n);
            }
            hit as fn(u64)
        }),*]
    };
}

/// Two threads hit each of 32 call sites for the first time at the same moment, `n` times each.
fn first_hits(n: u64) {
    gracepoint_tracing::init().expect("the agent starts");
    let sites = sites!("0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15" "16"
        "17" "18" "19" "20" "21" "22" "23" "24" "25" "26" "27" "28" "29" "30" "31");
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for site in sites {
                    together.wait();
                    (0..n).for_each(site);
                }
            });
        }
    });
}

/// Tasks that are polled many times, on two threads; values of every kind; what comes later; what follows.
fn tasks() {
    gracepoint_tracing::init().expect("the agent starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let outer = tracing::info_span!(target: "tasks", "outer", n = 7u64, later = tracing::field::Empty);
        let first = outer.clone();
        async {
            tracing::debug!(
                name: "values", target: "tasks",
                unsigned = 1u64, signed = -1i64, float = 0.5f64, truth = true, text = "a text",
                wide = u128::MAX, shown = %"shown", debugged = ?Some("x"), nothing = tracing::field::Empty,
                "a message with {}", 42
            );
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            tracing::Span::current().record("later", "now");
            let inner = tracing::info_span!(target: "tasks", "inner", span = "its own");
            inner.follows_from(&first);
            inner.in_scope(|| tracing::info!(name: "inside", target: "tasks", ok = true));
        }
        .instrument(outer)
        .await;
    });
}

fn logs() {
    gracepoint_tracing::init().expect("the agent starts");
    for n in 0..10 {
        log::warn!(target: "old::style", "record {n}");
        log::trace!("too much");
    }
}

/// Hits a call site for the first time under the recorder's eyes, and is killed at once.
fn killed() {
    gracepoint_tracing::init().expect("the agent starts");
    for n in 0..100u64 {
        tracing::error!(name: "last words", target: "killed", n);
    }
    let _ =
        std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    std::thread::sleep(std::time::Duration::from_secs(60));
}
