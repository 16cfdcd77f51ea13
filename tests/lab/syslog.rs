//! The machine's syslog: one file for all that the daemons say.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::wait;

/// Everything that was logged.
pub const MAIL_LOG: &str = "/var/log/mail.log";

/// Where it is listened to.
pub const SOCKET: &str = "/dev/log";

/// Starts to write what comes in.
pub fn start() {
    let socket = UnixDatagram::bind(SOCKET).unwrap();
    fs::set_permissions(SOCKET, Permissions::from_mode(0o666)).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(MAIL_LOG).unwrap();
    thread::spawn(move || {
        let mut message = [0; 8192];
        while let Ok(length) = socket.recv(&mut message) {
            let line = as_written(&message[..length], &jiff::Timestamp::now().to_string());
            let _ = log.write_all(&line);
        }
    });
}

/// The log, with all that was said until now: what comes in is written a moment later.
pub fn so_far() -> String {
    static MARKS: AtomicU32 = AtomicU32::new(0);
    let mark = format!("mark {}.", MARKS.fetch_add(1, Ordering::Relaxed));
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(format!("<22>Nov 24 08:11:30 lab: {mark}").as_bytes(), SOCKET).unwrap();
    wait::until("what was said is in the log", 60, || {
        let log = fs::read_to_string(MAIL_LOG).unwrap();
        if log.contains(&mark) { Ok(log) } else { Err(format!("no {mark}")) }
    })
}

/// `<22>Nov 24 08:11:30 postfix/smtp[1]: text` as Debian's rsyslog writes it: with another stamp, and the host.
fn as_written(message: &[u8], now: &str) -> Vec<u8> {
    const STAMP: usize = "Nov 24 08:11:30 ".len();
    let end = message.iter().position(|byte| *byte == b'>').map_or(0, |end| end + 1);
    let text = message[end..].get(STAMP..).unwrap_or_default().trim_ascii_end();
    [now.as_bytes(), b" bartleby ", text, b"\n"].concat()
}
