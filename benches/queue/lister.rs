//! The stand-in for a mail server's listing: the bench, started as `queue --list ...`, or `cat` of a
//! file that it wrote. Every queue is the same whenever and wherever it is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// Messages a second of a real `postqueue -j`: it reads every queue file, and took 0.7 to 1.0 s for
/// 20,000 messages. A lister of that pace shows what a reader waits for.
pub const REAL_PACE: u32 = 25_000;

/// Writes the queue of so many messages as Postfix's `postqueue -j` does, some 320 bytes a message.
pub fn write_queue(out: impl Write, messages: u32, pace: Option<u32>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(4096, out);
    let started = Instant::now();
    for number in 0..messages {
        if let Some(pace) = pace.filter(|_| number % 100 == 0) {
            let due = Duration::from_secs(1) * number / pace;
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        write_message(&mut out, number)?;
    }
    out.flush()
}

/// One message: 997 recipients in 23 domains, and reasons of which one in eight is like no other.
fn write_message(out: &mut impl Write, number: u32) -> io::Result<()> {
    let arrival = 1_795_440_000 - u64::from(number % 300_000);
    let address = format!("recipient{}@department{}.example.com", number % 997, number % 23);
    let reason = match number % 8 {
        0 => format!("host mail.example.com[192.0.2.25] said: 450 4.2.0 <{address}>: Greylisted, try {number} again"),
        1 => "host mail.example.com[192.0.2.25] said: 452 4.2.2 Mailbox full (in reply to RCPT TO command)".into(),
        2 => "lost connection with mail.example.com[192.0.2.25] while receiving the initial server greeting".into(),
        _ => "connect to mail.example.com[192.0.2.25]:25: Connection refused by the primary mail server".to_string(),
    };
    writeln!(
        out,
        "{{\"queue_name\": \"deferred\", \"queue_id\": \"{:010X}\", \"arrival_time\": {arrival}, \"message_size\": {}, \
         \"forced_expire\": false, \"sender\": \"sender{}@lists.example.org\", \"recipients\": \
         [{{\"address\": \"{address}\", \"delay_reason\": \"{reason}\"}}]}}",
        0xA0_0000_0000_u64 + u64::from(number),
        500 + number % 40_000,
        number % 5003,
    )
}

/// Copies a written queue to the standard output, and notes in `folder` how many did so at that moment.
pub fn copy_counted(queue: &Path, folder: &Path) -> io::Result<()> {
    let running = folder.join("running");
    let mine = running.join(process::id().to_string());
    File::create(&mine)?;
    let now = fs::read_dir(&running)?.count();
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("counts"))?
        .write_all(format!("{now}\n").as_bytes())?;
    let copied = io::copy(&mut File::open(queue)?, &mut io::stdout());
    fs::remove_file(&mine)?;
    copied.map(drop)
}
