//! The machine's syslog: one file for all that the daemons say.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::thread;

/// Everything that was logged.
pub const MAIL_LOG: &str = "/var/log/mail.log";

const SOCKET: &str = "/dev/log";

/// Starts to write what comes in.
pub fn start() {
    let socket = UnixDatagram::bind(SOCKET).unwrap();
    fs::set_permissions(SOCKET, Permissions::from_mode(0o666)).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(MAIL_LOG).unwrap();
    thread::spawn(move || {
        let mut message = [0; 8192];
        while let Ok(length) = socket.recv(&mut message) {
            let line = message[..length].trim_ascii_end();
            let _ = log.write_all(&[line, b"\n"].concat());
        }
    });
}
