//! A real Chromium without a screen, driven over WebDriver (W3C Recommendation).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::wait;

const DRIVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9515);
const LONGEST: Duration = Duration::from_secs(60);

/// A browser with a new profile.
pub struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Browser {
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", DRIVER.port()))
            .env("HOME", "/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Browser { driver, session: String::new() };
        // As root, and without reaching out for anything by itself.
        let options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": options}}}});
        let session = wait::until("the browser starts", 60, || ask("POST", "/session", &wanted));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens an address, as if it had been typed.
    pub fn open(&self, address: &str) {
        self.command("POST", "url", &json!({"url": address}));
    }

    /// The address of the page that it shows.
    pub fn address(&self) -> String {
        self.command("GET", "url", &Value::Null).as_str().unwrap().to_owned()
    }

    /// Clicks on the first element that a CSS selector finds.
    pub fn click(&self, selector: &str) {
        let element = self.command("POST", "element", &json!({"using": "css selector", "value": selector}));
        let id = element.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.command("POST", &format!("element/{id}/click"), &json!({}));
    }

    /// What a script, the body of a function, returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "execute/sync", &json!({"script": script, "args": []}))
    }

    /// What a script passes to the function that is its last argument.
    pub fn run_async(&self, script: &str) -> Value {
        self.command("POST", "execute/async", &json!({"script": script, "args": []}))
    }

    /// Presses a key, by its code in WebDriver's table (section 17.4.2).
    pub fn press(&self, key: char) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.command("POST", "actions", &keyboard);
    }

    /// What is seen at a place of the page: red, green, blue.
    pub fn colour_at(&self, x: usize, y: usize) -> [u8; 3] {
        let picture = self.command("GET", "screenshot", &Value::Null);
        let bytes = BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        let start = y * frame.line_size + x * frame.color_type.samples();
        [pixels[start], pixels[start + 1], pixels[start + 2]]
    }

    /// Plays a screen of this width, in light or dark colours, or paper.
    pub fn play(&self, width: u32, colours: &str, medium: &str) {
        let devtools = |name: &str, parameters: Value| {
            self.command("POST", "goog/cdp/execute", &json!({"cmd": name, "params": parameters}));
        };
        let screen = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        devtools("Emulation.setDeviceMetricsOverride", screen);
        let colours = json!([{"name": "prefers-color-scheme", "value": colours}]);
        devtools("Emulation.setEmulatedMedia", json!({"media": medium, "features": colours}));
    }

    fn command(&self, method: &str, what: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{what}", self.session);
        ask(method, &path, body).unwrap_or_else(|error| panic!("{method} {what} {body}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser itself; the lab's end would, too.
        let _ = ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One WebDriver command; its value, or what went wrong.
fn ask(method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let answer = exchange(method, path, body).map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    match answer["value"]["error"].as_str() {
        Some(_) => Err(answer["value"]["message"].to_string()),
        None => Ok(answer["value"].clone()),
    }
}

fn exchange(method: &str, path: &str, body: &Value) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(DRIVER)?;
    stream.set_read_timeout(Some(LONGEST))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {DRIVER}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    // The driver keeps the connection open, whatever it is asked for.
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    Ok(answer)
}
