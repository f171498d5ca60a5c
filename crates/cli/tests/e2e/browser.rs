//! Chromium without a window, driven by its own protocol over a web socket on a port that it chooses.

use crate::scene::DEADLINE;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

pub(crate) const NAME: &str = "chromium";

/// A browser with one page open; both end with this.
pub(crate) struct Browser {
    child: Child,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
}

impl Browser {
    /// Opens `page`, with its profile in `dir`.
    pub(crate) fn open(dir: &Path, page: &str) -> Browser {
        let mut command = Command::new(NAME);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--remote-debugging-port=0",
            "--window-size=1200,700",
        ]);
        command
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .arg("about:blank");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned))
            .expect("the browser says where it listens");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let (socket, _) = tungstenite::connect(address).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
        }
        let mut browser = Browser { child, socket, session: String::new(), last: 0 };
        let target = browser.ask("Target.createTarget", json!({ "url": page }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// The result of a command.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(command.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let said = self.ask("Runtime.evaluate", params);
        assert!(said["exceptionDetails"].is_null(), "{expression}: {}", said["exceptionDetails"]);
        said["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, element: &str) -> String {
        let value = self.value(&format!("document.getElementById('{element}').innerText"));
        value.as_str().unwrap().to_owned()
    }

    /// Waits until `expression` is true.
    pub(crate) fn until(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.value(&format!("Boolean({expression})")) != json!(true) {
            if begin.elapsed() >= DEADLINE {
                panic!("never true: {expression}; the page says: {}", self.text("status"));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Something the mouse does at this place of the page.
    pub(crate) fn mouse(&mut self, kind: &str, (x, y): (f64, f64), more: Value) {
        let mut params = json!({ "type": kind, "x": x, "y": y });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask("Input.dispatchMouseEvent", params);
    }

    pub(crate) fn click(&mut self, at: (f64, f64)) {
        let left = json!({ "button": "left", "clickCount": 1 });
        self.mouse("mousePressed", at, left.clone());
        self.mouse("mouseReleased", at, left);
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }

    pub(crate) fn key(&mut self, key: &str, code: u32) {
        let params = |kind| json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
        self.ask("Input.dispatchKeyEvent", params("rawKeyDown"));
        self.ask("Input.dispatchKeyEvent", params("keyUp"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
