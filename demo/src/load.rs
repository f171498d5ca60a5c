//! The load: a few clients, each with one keep-alive connection, at a pace that leaves the
//! machine room for the person at the terminal.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

const CLIENTS: u64 = 4;
/// Requests in a burst, and the pause after it: about 2,000 requests per second and client.
const BURST: u32 = 8;
const PAUSE: Duration = Duration::from_millis(3);
/// How many different keys are asked for.
pub(crate) const KEYS: u32 = 20_000;

/// The key of a number below [`KEYS`]; small numbers are popular.
pub(crate) fn key(number: u32) -> String {
    format!("user:{number:05}")
}

/// Some value of that size.
pub(crate) fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'v'; bytes])
}

/// Starts the clients; they run as long as `runtime` does.
pub(crate) fn start(runtime: &Runtime, server: SocketAddr) {
    for number in 1..=CLIENTS {
        runtime.spawn(async move {
            let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            loop {
                // The server may close a connection; a client then opens another one.
                let _ = converse(server, &mut dice).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Sends requests over one connection for as long as it holds.
async fn converse(server: SocketAddr, dice: &mut Dice) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    loop {
        for _ in 0..BURST {
            ask(&mut sender, next_request(server, dice)?).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(), hyper::Error> {
    sender.ready().await?;
    let mut answer = sender.send_request(request).await?;
    while let Some(frame) = answer.body_mut().frame().await {
        frame?;
    }
    Ok(())
}

/// Three quarters lookups, a few removals, the rest new values; some keys are much more popular
/// than others.
fn next_request(
    server: SocketAddr,
    dice: &mut Dice,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let key = key((dice.roll().powi(3) * f64::from(KEYS)) as u32);
    let (method, size) = match (dice.roll() * 100.0) as u32 {
        0..75 => (Method::GET, 0),
        75..78 => (Method::DELETE, 0),
        _ => (Method::PUT, 64 + (dice.roll() * 960.0) as usize),
    };
    Request::builder()
        .method(method)
        .uri(format!("/kv/{key}"))
        .header(header::HOST, server.to_string())
        .body(Full::new(value(size)))
}

/// A generator of numbers that look random (xorshift64*); the load is the same in every run.
struct Dice(u64);

impl Dice {
    /// A number of `0.0..1.0`.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn dice_are_fair_enough() {
    let mut dice = Dice(7);
    let rolls: Vec<f64> = (0..10_000).map(|_| dice.roll()).collect();
    let mean = rolls.iter().sum::<f64>() / 10_000.0;
    assert!(rolls.iter().all(|r| (0.0..1.0).contains(r)) && (mean - 0.5).abs() < 0.02, "{mean}");
}
