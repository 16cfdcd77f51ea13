//! The stand-in for a mail server's listing: the bench, started as `queue --list ...`, or `cat` of a
//! file that it wrote. Every queue is the same whenever and wherever it is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use crate::outage::Attempt;

/// Messages a second of a real `postqueue -j`: it reads every queue file, and took 0.7 to 1.0 s for
/// 20,000 messages. A lister of that pace shows what a reader waits for.
pub const REAL_PACE: u32 = 25_000;

/// The forms in which the mail servers print their queues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Postfix's `postqueue -j`.
    PostfixJson,
    /// Postfix's `postqueue -p`, the form of older ones.
    PostfixTable,
    /// sendmail's `sendmail -bp -v`.
    Sendmail,
    /// Exim's `exim -bp`.
    Exim,
    /// OpenSMTPD's `smtpctl show queue`.
    OpenSmtpd,
}

impl Form {
    /// Every form, the one that is measured in full first.
    pub const ALL: [Form; 5] = [Form::PostfixJson, Form::PostfixTable, Form::Sendmail, Form::Exim, Form::OpenSmtpd];

    /// The mail server, as the configuration names it.
    pub fn kind(self) -> &'static str {
        match self {
            Form::PostfixJson | Form::PostfixTable => "postfix",
            Form::Sendmail => "sendmail",
            Form::Exim => "exim",
            Form::OpenSmtpd => "opensmtpd",
        }
    }

    /// The command that prints so.
    pub fn command(self) -> &'static str {
        match self {
            Form::PostfixJson => "postqueue -j",
            Form::PostfixTable => "postqueue -p",
            Form::Sendmail => "sendmail -bp -v",
            Form::Exim => "exim -bp",
            Form::OpenSmtpd => "smtpctl show queue",
        }
    }

    /// What stands before the first of so many messages.
    fn head(self, out: &mut impl Write, messages: u32) -> io::Result<()> {
        match self {
            Form::PostfixTable if messages > 0 => {
                out.write_all(b"-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n")
            }
            Form::Sendmail if messages > 0 => write!(
                out,
                "\t\t/var/spool/mqueue ({messages} requests)\n\
                 -----Q-ID----- --Size-- -Priority- ---Q-Time--- --------Sender/Recipient--------\n"
            ),
            Form::Sendmail => out.write_all(b"/var/spool/mqueue is empty\n"),
            _ => Ok(()),
        }
    }

    /// What stands behind the last.
    fn foot(self, out: &mut impl Write, messages: u32) -> io::Result<()> {
        match self {
            Form::PostfixTable if messages > 0 => writeln!(out, "-- 9 Kbytes in {messages} Requests."),
            Form::PostfixTable => out.write_all(b"Mail queue is empty\n"),
            Form::Sendmail => writeln!(out, "\t\tTotal requests: {messages}"),
            _ => Ok(()),
        }
    }

    fn message(self, out: &mut impl Write, number: u32) -> io::Result<()> {
        let Envelope { arrival, size, sender, address, attempt } = &Envelope::of(number);
        let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
        match self {
            Form::PostfixJson => writeln!(
                out,
                "{{\"queue_name\": \"deferred\", \"queue_id\": \"{:010X}\", \"arrival_time\": {arrival}, \
                 \"message_size\": {size}, \"forced_expire\": false, \"sender\": \"{sender}\", \"recipients\": \
                 [{{\"address\": \"{address}\", \"delay_reason\": \"{}\"}}]}}",
                0xA0_0000_0000_u64 + u64::from(number),
                attempt.for_postfix(address)
            ),
            Form::PostfixTable => write!(
                out,
                "{:010X} {size:>8} Sat Nov 21 {hour:02}:{minute:02}:{second:02}  {sender}\n{:>78}\n{:41}{address}\n\n",
                0xA0_0000_0000_u64 + u64::from(number),
                format!("({})", attempt.for_postfix(address)),
                "",
            ),
            Form::Sendmail => write!(
                out,
                "6AL{number:011} {size:>8} {:>10} Nov 21 {hour:02}:{minute:02} <{sender}>\n                 \
                 ({})\n\t\t\t\t\t\t<{address}>\n",
                30_000 + number,
                attempt.for_sendmail(address)
            ),
            Form::Exim => write!(
                out,
                "{:>2}h {:>5} 1x{:04}-{:06}-00 <{sender}>\n          {address}\n\n",
                number % 100,
                if *size < 1024 { size.to_string() } else { format!("{}K", size / 1024) },
                number / 1_000_000,
                number % 1_000_000
            ),
            Form::OpenSmtpd => writeln!(
                out,
                "{number:08x}00000001|inet4|mta||{sender}|{address}|{address}|{arrival}|{arrival}|0|1|pending|392|{}",
                attempt.for_opensmtpd(address)
            ),
        }
    }
}

/// Writes the queue of so many messages, in Postfix's JSON some 370 bytes each.
pub fn write_queue(form: Form, out: impl Write, messages: u32, pace: Option<u32>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(4096, out);
    let started = Instant::now();
    form.head(&mut out, messages)?;
    for number in 0..messages {
        if let Some(pace) = pace.filter(|_| number % 100 == 0) {
            let due = Duration::from_secs(1) * number / pace;
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        form.message(&mut out, number)?;
    }
    form.foot(&mut out, messages)?;
    out.flush()
}

/// One message, of 5,003 senders to some 300,000 recipients in 300 domains.
struct Envelope {
    arrival: u32,
    size: u32,
    sender: String,
    address: String,
    attempt: Attempt,
}

impl Envelope {
    fn of(number: u32) -> Envelope {
        let attempt = Attempt::of(number);
        Envelope {
            // In no order, as a queue's files are in none.
            arrival: 1_795_440_000 - (u64::from(number) * 7919 % 300_000) as u32,
            size: 500 + number % 40_000,
            sender: format!("sender{}@lists.example.org", number % 5003),
            address: format!("recipient{}@{}", number % 997, attempt.domain()),
            attempt,
        }
    }
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
