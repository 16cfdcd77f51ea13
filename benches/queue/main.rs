//! `make bench`: what a page costs, against the lister alone and against a Perl script of the old kind.
//!
//! Every figure is the median of several rounds, and in a round everything is run in turn, so that
//! a machine that slows down slows all of them. What is compared are ratios of one run of the bench;
//! seconds of two machines, or of two days, are not. A missed figure is printed as such and is no
//! error; a page that fails is one.
//!
//! "Own" processor time, user and system, is that of the program with the branches of itself: what the machine spends
//! on a page in all ("with lister") less what the same lister takes alone. The Perl script has no branches: its own is
//! what its process takes.
//!
//!     queue [--rounds 7] [--before PROGRAM] [PROGRAM]
//!                                    with an older program, run in turn with the other one
//!     queue --own-queue PROGRAM      over the queue of this machine's own Postfix
//!     queue --served WHAT            behind Apache, see `served`
//!     queue --crowd COUNTS           the same, fifty readers at once

mod instructions;
mod lister;
mod measure;
mod outage;
mod served;

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lister::{Form, REAL_PACE};
use measure::{Cost, cost};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The queues' lengths, in messages.
const QUEUES: [u32; 5] = [0, 100, 20_000, 100_000, 1_000_000];

/// Rounds of a queue of a million messages, at the most.
const LONG_ROUNDS: u32 = 3;

/// How many readers come at once.
const READERS: usize = 50;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).filter(|argument| argument != "--bench");
    let (mut program, mut rounds) = (PathBuf::from("target/index.cgi"), 7);
    let mut before = None;
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.to_str()?.parse::<u32>().ok());
        match argument.to_str() {
            // This program as the launcher and as the listers; see the two modules.
            Some("--measure") => return measure::launch(&arguments.collect::<Vec<_>>()),
            Some("--list") => {
                return Ok(lister::write_queue(
                    Form::PostfixJson,
                    io::stdout(),
                    number().ok_or("--list N [PACE]")?,
                    number(),
                )?);
            }
            Some("--copy") => match (arguments.next(), arguments.next()) {
                (Some(queue), Some(folder)) => return Ok(lister::copy_counted(queue.as_ref(), folder.as_ref())?),
                _ => return Err("--copy QUEUE FOLDER".into()),
            },
            Some("--own-queue") => return own_queue(arguments.next().ok_or("--own-queue PROGRAM")?.into()),
            Some("--served") => return served::rates(&arguments.next().ok_or("--served WHAT")?.to_string_lossy()),
            Some("--crowd") => return served::crowd(arguments.next().ok_or("--crowd COUNTS")?.as_ref()),
            Some("--rounds") => rounds = number().ok_or("--rounds N")?,
            Some("--before") => before = Some(fs::canonicalize(arguments.next().ok_or("--before PROGRAM")?)?),
            _ => program = argument.into(),
        }
    }
    let program = fs::canonicalize(&program).map_err(|error| format!("{}: {error}", program.display()))?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut bench = Bench { program, before, folder: folder.path().into(), rounds, figures: Vec::new() };
    bench.binary()?;
    for form in Form::ALL {
        bench.queues(form)?;
    }
    bench.instructions()?;
    bench.real_pace()?;
    bench.readers()?;
    bench.print_figures();
    Ok(())
}

/// The page over the queue of this machine's own Postfix, against `postqueue -j` alone.
fn own_queue(program: PathBuf) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench { program, before: None, folder: folder.path().into(), rounds: 25, figures: Vec::new() };
    let real = Lister::new("postqueue", Form::PostfixJson, &[&"/usr/sbin/postqueue", &"-j"]);
    println!("a real Postfix queue, {} KiB of postqueue -j", real.alone()?.sent / 1024);
    bench.print_head();
    bench.against_lister(&real, "page over a real Postfix queue")?;
    bench.print_figures();
    Ok(())
}

/// The bench: where things are, and what was reached so far.
struct Bench {
    program: PathBuf,
    /// An older program, to be compared with.
    before: Option<PathBuf>,
    folder: PathBuf,
    rounds: u32,
    figures: Vec<Figure>,
}

/// One of the figures to reach.
struct Figure {
    what: String,
    limit: String,
    found: String,
    reached: bool,
}

/// A lister: its command, what it prints, and a name for its files.
struct Lister {
    name: String,
    form: Form,
    command: Vec<OsString>,
}

impl Lister {
    fn new(name: impl Into<String>, form: Form, command: &[&dyn AsRef<OsStr>]) -> Self {
        Self { name: name.into(), form, command: command.iter().map(|word| word.as_ref().into()).collect() }
    }

    /// The lister without anybody reading but the bench.
    fn alone(&self) -> Result<Cost> {
        cost(&self.words(), &[("LC_ALL", "C")])
    }

    fn words(&self) -> Vec<&OsStr> {
        self.command.iter().map(OsString::as_os_str).collect()
    }
}

impl Bench {
    /// Size and kind of the file.
    fn binary(&mut self) -> Result<()> {
        let bytes = fs::read(&self.program)?;
        let mebibytes = bytes.len() as f64 / 1_048_576.0;
        self.figure("the binary's size", "4.5 MiB", format!("{mebibytes:.2} MiB"), mebibytes <= 4.5);
        let loader = asks_for_loader(&bytes);
        let found = if loader { "it asks for one" } else { "none" };
        self.figure("the binary's dynamic loader", "none", found.into(), !loader);
        Ok(())
    }

    /// The table: queues of every length in one mail server's form, with the lister and the Perl script.
    fn queues(&mut self, form: Form) -> Result<()> {
        println!("\n{}: medians", form.command());
        self.print_head();
        let names: &[&str] = if form == Form::PostfixJson {
            &[
                "cat alone",
                "bartleby html",
                "bartleby json",
                "bartleby text",
                "bartleby csv",
                "bartleby openmetrics",
                "Perl html",
            ]
        } else {
            &["cat alone", "bartleby html", "bartleby json", "Perl html"]
        };
        for messages in QUEUES {
            let file = self.folder.join("queue");
            lister::write_queue(form, File::create(&file)?, messages, None)?;
            let lister = Lister::new("cat", form, &[&"/bin/cat", &file]);
            self.check(&lister, messages)?;

            let mut rows: Vec<_> = names.iter().copied().map(Row::new).collect();
            if self.before.is_some() {
                rows.splice(1..1, ["before html", "before json"].map(Row::new));
            }
            for _ in 0..if messages > 100_000 { self.rounds.min(LONG_ROUNDS) } else { self.rounds } {
                for row in &mut rows {
                    let run = match row.name.split_once(' ') {
                        Some(("bartleby", format)) => self.page(&lister, &format!("format={format}"))?,
                        Some(("before", format)) => self.page_before(&lister, &format!("format={format}"))?,
                        Some(("Perl", _)) => self.perl(&lister)?,
                        _ => lister.alone()?,
                    };
                    row.costs.push(run);
                }
            }
            println!("{messages} messages");
            if let Some(alone) = rows.first().map(|row| row.cost().all) {
                let ours = |row: &&mut Row| row.name.starts_with("bartleby") || row.name.starts_with("before");
                let costs = rows.iter_mut().filter(ours).flat_map(|row| &mut row.costs);
                costs.for_each(|cost| cost.own = cost.all.saturating_sub(alone));
            }
            self.before_figures(form, messages, &rows);
            if let [alone, .., perl] = rows.as_slice() {
                rows.iter().for_each(|row| row.print(alone, perl));
            }
            self.queue_figures(form, messages, &rows);
            if (form, messages) == (Form::PostfixJson, 100_000) {
                // For those that come at once.
                fs::copy(&file, self.folder.join("queue-100000"))?;
            }
        }
        Ok(())
    }

    /// How a page compares with that of the older program.
    fn before_figures(&mut self, form: Form, messages: u32, rows: &[Row]) {
        let find = |name| rows.iter().find(|row| row.name == name);
        for (now, before) in [("bartleby html", "before html"), ("bartleby json", "before json")] {
            let (Some(now), Some(before)) = (find(now), find(before)) else { continue };
            let found = ratio(now.cost().own, before.cost().own);
            let what = format!("own time, {messages} messages, {} as {}, to before", form.command(), &now.name[9..]);
            self.figure(&what, "1.15 x", format!("{found:.2} x"), found <= 1.15);
        }
    }

    /// The figures to reach of one queue.
    fn queue_figures(&mut self, form: Form, messages: u32, rows: &[Row]) {
        for (format, name) in [("html", "bartleby html"), ("json", "bartleby json")] {
            let Some(row) = rows.iter().find(|row| row.name == name) else { continue };
            let what = |figure: &str| format!("{figure}, {messages} messages, {} as {format}", form.command());
            match messages {
                0 => self.figure_own(&what("own time"), 3.0, row),
                100_000 => {
                    let perl = rows.last().map(|row| row.cost().all).unwrap_or_default();
                    let (most, found) = (if format == "html" { 1.0 } else { 1.8 }, ratio(row.cost().all, perl));
                    let limit = format!("{most} x Perl's");
                    self.figure(&what("time with lister"), &limit, format!("{found:.2} x"), found <= most);
                    self.figure_own(&what("own time"), 150.0, row);
                    self.figure_peak(&what("peak memory"), 16.0, row.cost().peak);
                }
                1_000_000 => self.figure_peak(&what("peak memory"), 16.0, row.cost().peak),
                _ => {}
            }
        }
    }

    fn print_head(&self) {
        println!(
            "{:24}{:>10}{:>10}{:>13}{:>13}{:>8}{:>10}",
            "", "own CPU", "/ Perl's", "with lister", "wall", "peak", "sent"
        );
        println!("{:24}{:>10}{:>10}{:>13}{:>13}{:>8}{:>10}", "", "ms", "own", "ms", "/ lister's", "MiB", "KiB");
    }

    /// Fails unless the program counts as many messages as the lister has: what is measured is right.
    fn check(&self, lister: &Lister, messages: u32) -> Result<()> {
        let output = Command::new(&self.program).env_clear().envs(self.request(lister, "format=json")?).output()?;
        let answer = String::from_utf8(output.stdout)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("the program's answer has no head")?;
        let Queue { messages: counted, status } = serde_json::from_str::<Answer>(body)?.queue;
        if (counted, status.as_str()) == (messages, "ok") {
            Ok(())
        } else {
            Err(format!("of {messages} messages of {} it sees {counted}: {status}", lister.form.command()).into())
        }
    }

    /// At the pace of a mail server: how much longer than its listing takes the page?
    fn real_pace(&mut self) -> Result<()> {
        let messages = "20000".to_owned();
        let lister = Lister::new(
            "pace",
            Form::PostfixJson,
            &[&env::current_exe()?, &"--list", &messages, &REAL_PACE.to_string()],
        );
        println!("\n20000 messages at the pace of a real postqueue");
        self.against_lister(&lister, "page over 20,000 messages at a mail server's pace")
    }

    /// The wall time of the page and of the Perl script, as a ratio to the lister's alone.
    fn against_lister(&mut self, lister: &Lister, what: &str) -> Result<()> {
        let mut rows = ["lister alone", "bartleby html", "Perl html"].map(Row::new);
        for _ in 0..self.rounds {
            let alone = lister.alone()?;
            let runs = [alone, self.page(lister, "format=html")?, self.perl(lister)?];
            for (row, run) in rows.iter_mut().zip(runs) {
                row.costs.push(run);
            }
        }
        let [alone, html, perl] = &rows;
        for row in &rows {
            row.print(alone, perl);
        }
        let found = ratio(html.cost().wall, alone.cost().wall);
        self.figure(what, "1.05 x the lister", format!("{found:.3} x"), found <= 1.05);
        Ok(())
    }

    /// Fifty readers at once: is everyone answered, and how many listings run at a time?
    fn readers(&mut self) -> Result<()> {
        let folder = self.folder.join("readers");
        fs::create_dir_all(folder.join("running"))?;
        let queue = self.folder.join("queue-100000");
        let lister = Lister::new("readers", Form::PostfixJson, &[&env::current_exe()?, &"--copy", &queue, &folder]);
        let variables = self.request(&lister, "format=html")?;

        let alone = cost(&[self.program.as_os_str()], &variables)?;
        fs::remove_file(folder.join("counts"))?;
        let started = Instant::now();
        let program = self.program.as_os_str();
        let answers: Vec<_> = thread::scope(|scope| {
            let reader = |number| {
                // Of one address, fewer are under way at a time.
                let address = ("REMOTE_ADDR", format!("192.0.2.{number}").into());
                let variables = [variables.as_slice(), &[address]].concat();
                scope.spawn(move || cost(&[program], &variables).map_err(|error| error.to_string()))
            };
            let readers: Vec<_> = (0..READERS).map(reader).collect();
            readers.into_iter().filter_map(|reader| reader.join().ok()).collect()
        });
        let wall = started.elapsed();

        let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(std::result::Result::is_ok);
        let peak = answered.iter().flatten().map(|run| run.peak).max().unwrap_or_default();
        let slowest = answered.iter().flatten().map(|run| run.wall).max().unwrap_or_default();
        let counts = fs::read_to_string(folder.join("counts"))?;
        let most = counts.lines().filter_map(|line| line.parse::<u32>().ok()).max().unwrap_or_default();
        println!("{READERS} readers at once, 100000 messages");
        println!(
            "  {} listings, {most} at a time at most; all after {:.1} x one reader's time, the slowest {:.1} x",
            counts.lines().count(),
            ratio(wall, alone.wall),
            ratio(slowest, alone.wall),
        );
        if let Some(Err(error)) = refused.first() {
            println!("  {} had no page, the first: {}", refused.len(), error.lines().next().unwrap_or_default());
        }
        self.figure("50 readers: listings at a time", "2", most.to_string(), most <= 2);
        self.figure("50 readers: pages", "50", answered.len().to_string(), answered.len() == READERS);
        self.figure_peak("50 readers: peak memory of one", 16.0, peak);
        Ok(())
    }

    /// One page of the older program's.
    fn page_before(&self, lister: &Lister, query: &str) -> Result<Cost> {
        let before = self.before.as_deref().ok_or("no older program")?;
        // With a state folder of its own: its database may be another one.
        let lister =
            Lister { name: format!("{}-before", lister.name), form: lister.form, command: lister.command.clone() };
        cost(&[before.as_os_str()], &self.request(&lister, query)?)
    }

    /// One page of the program's.
    fn page(&self, lister: &Lister, query: &str) -> Result<Cost> {
        cost(&[self.program.as_os_str()], &self.request(lister, query)?)
    }

    /// One page of the Perl script's.
    fn perl(&self, lister: &Lister) -> Result<Cost> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.pl");
        // Beside the bench, where that was brought to another machine.
        let script = env::current_exe()?.with_file_name("baseline.pl");
        let script = if script.exists() { script } else { here };
        let list = lister.words().join(OsStr::new(" "));
        cost(
            &["/usr/bin/perl".as_ref(), script.as_os_str()],
            &[("PATH", "/usr/bin:/bin".into()), ("QUERY_STRING", OsString::new()), ("BASELINE_LIST", list)],
        )
    }

    /// The environment of a page request, with a configuration that names the lister.
    fn request(&self, lister: &Lister, query: &str) -> Result<Vec<(&'static str, OsString)>> {
        let config = self.folder.join(format!("{}.toml", lister.name));
        let state = self.folder.join(format!("{}.state", lister.name));
        fs::create_dir_all(&state)?;
        let settings = format!(
            "[mta]\nkind = {:?}\nlist_command = {:?}\ndeadline = \"120s\"\n[state]\ndirectory = {state:?}\n",
            lister.form.kind(),
            lister.command
        );
        fs::write(&config, settings)?;
        Ok(vec![
            ("GATEWAY_INTERFACE", "CGI/1.1".into()),
            ("REQUEST_METHOD", "GET".into()),
            ("SERVER_PROTOCOL", "HTTP/1.1".into()),
            ("SCRIPT_NAME", "/index.cgi".into()),
            ("QUERY_STRING", query.into()),
            ("REMOTE_ADDR", "127.0.0.1".into()),
            ("BARTLEBY_ACCESS", "granted".into()),
            ("BARTLEBY_CONFIG", config.into()),
        ])
    }

    fn figure(&mut self, what: &str, limit: &str, found: String, reached: bool) {
        self.figures.push(Figure { what: what.into(), limit: limit.into(), found, reached });
    }

    fn figure_own(&mut self, what: &str, limit: f64, row: &Row) {
        let found = milliseconds(row.cost().own);
        self.figure(what, &format!("{limit} ms"), format!("{found:.2} ms"), found <= limit);
    }

    fn figure_peak(&mut self, what: &str, limit: f64, peak: u64) {
        let found = mebibytes(peak);
        self.figure(what, &format!("{limit} MiB"), format!("{found:.1} MiB"), found <= limit);
    }

    fn print_figures(&self) {
        println!("\n{:66} {:>18} {:>12}", "figures to reach", "at most", "found");
        for Figure { what, limit, found, reached } in &self.figures {
            println!("{what:66} {limit:>18} {found:>12}  {}", if *reached { "reached" } else { "MISSED" });
        }
    }
}

/// One line of a table: what was run, and its cost in every round.
struct Row {
    name: &'static str,
    costs: Vec<Cost>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self { name, costs: Vec::new() }
    }

    /// The median cost, each number by itself.
    fn cost(&self) -> Cost {
        Cost {
            wall: self.median(|cost| cost.wall),
            own: self.median(|cost| cost.own),
            all: self.median(|cost| cost.all),
            peak: self.median(|cost| cost.peak),
            sent: self.median(|cost| cost.sent),
        }
    }

    fn median<T: Ord + Copy + Default>(&self, number: fn(&Cost) -> T) -> T {
        let mut numbers: Vec<T> = self.costs.iter().map(number).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    }

    fn print(&self, lister: &Row, perl: &Row) {
        let cost = self.cost();
        println!(
            "  {:22}{:>10.2}{:>10.2}{:>13.2}{:>13.2}{:>8.1}{:>10.0}",
            self.name,
            milliseconds(cost.own),
            ratio(cost.own, perl.cost().own),
            milliseconds(cost.all),
            ratio(cost.wall, lister.cost().wall),
            mebibytes(cost.peak),
            cost.sent as f64 / 1024.0
        );
    }
}

/// What [`Bench::check`] reads of the program's JSON.
#[derive(serde::Deserialize)]
struct Answer {
    queue: Queue,
}

#[derive(serde::Deserialize)]
struct Queue {
    messages: u32,
    status: String,
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

/// Whether a 64-bit ELF file has a `PT_INTERP` program header: the loader that it wants.
fn asks_for_loader(elf: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3_u32.to_ne_bytes();
    let word = |at: usize| elf.get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
    // e_phoff (its low half is enough), e_phentsize and e_phnum.
    let (first, size, count) = (word(32), word(54), word(56));
    (0..count).any(|index| elf.get(first + index * size..).is_some_and(|header| header.starts_with(&PT_INTERP)))
}
