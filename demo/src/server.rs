//! The HTTP server: `GET`, `PUT` and `DELETE` of `/kv/KEY`, over keep-alive connections.

use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::store::Store;
use crate::{events, load};

/// How often one of the shards is tidied up.
const COMPACT_EVERY: Duration = Duration::from_millis(50);

/// Size of the values that are there from the start.
const VALUE_BYTES: usize = 512;

/// The first line that the server prints says where it listens and which process it is:
/// `serving on http://127.0.0.1:PORT as process PID`.
pub(crate) const GREETING: &str = "serving on http://";

/// Serves, under load, until the process is ended, or standard input ends if that is asked for.
pub(crate) fn run(until_eof: bool) -> Result<(), Box<dyn Error>> {
    // From here on the process can be traced. It is all that a program has to do for that.
    match gracepoint::Builder::new().name("kv-demo").start()? {
        gracepoint::Status::Listening(_) => {}
        other => {
            let why = "unset GRACEPOINT if it says off; and it takes Linux";
            return Err(format!("the demo is about tracing, which is {other:?} here: {why}").into());
        }
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("kv-worker")
        .enable_all()
        .build()?;
    let store = Arc::new(Store::new());
    // Full from the start, as after a long life; the popular keys came last.
    for key in (0..load::KEYS / 2).rev() {
        store.put(&load::key(key), load::value(VALUE_BYTES));
    }
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    runtime.spawn(accept(listener, Arc::clone(&store)));
    load::start(&runtime, address);
    thread::Builder::new().name("kv-compact".to_owned()).spawn(move || compact(&store))?;

    greet(address, until_eof)?;
    if until_eof {
        // Whoever started this process holds the other end; when it is gone, so is the server.
        std::io::stdin().lock().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    loop {
        thread::park();
    }
}

fn greet(address: SocketAddr, until_eof: bool) -> std::io::Result<()> {
    let pid = std::process::id();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{GREETING}{address} as process {pid}")?;
    if !until_eof {
        let gracepoint = "  cargo run --release -p gracepoint-cli --";
        writeln!(out, "Under load until Ctrl-C. From another terminal:")?;
        writeln!(out, "{gracepoint} list -p {pid}")?;
        writeln!(out, "{gracepoint} record -p {pid} -e 'kv:*' -o kv.trace --duration 2s")?;
        writeln!(out, "{gracepoint} hist kv.trace -e kv:get -f latency --by hit")?;
    }
    out.flush()
}

async fn accept(listener: TcpListener, store: Arc<Store>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: let some connections end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // An answer should not wait for a full packet; without this option they are only slower.
        let _ = stream.set_nodelay(true);
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&store, request));
            // A client that breaks the connection off is none of our errors.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    store: &Store,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let method = events::Method::from(&head.method);
    let _span = gracepoint::span!(events::Request { method, path });

    let (status, body) = match (path.strip_prefix("/kv/"), method) {
        (None, _) => (StatusCode::NOT_FOUND, Bytes::new()),
        (Some(key), events::Method::Get) => match store.get(key) {
            Some(value) => (StatusCode::OK, value),
            None => (StatusCode::NOT_FOUND, Bytes::new()),
        },
        (Some(key), events::Method::Put) => match body.collect().await {
            Ok(value) => {
                store.put(key, value.to_bytes());
                (StatusCode::NO_CONTENT, Bytes::new())
            }
            Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
        },
        (Some(key), events::Method::Delete) if store.delete(key) => {
            (StatusCode::NO_CONTENT, Bytes::new())
        }
        (Some(_), events::Method::Delete) => (StatusCode::NOT_FOUND, Bytes::new()),
        (Some(_), events::Method::Other) => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
    };
    gracepoint::trace!(events::Response { status: status.as_u16(), bytes: body.len() as u32 });
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}

fn compact(store: &Store) {
    for turn in 0.. {
        thread::sleep(COMPACT_EVERY);
        let damaged = store.compact(turn);
        debug_assert_eq!(damaged, 0, "values change only under the lock");
    }
}
