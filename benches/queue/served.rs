//! `queue --served WHAT`: how often a second a real Apache answers with the program and with the Perl script behind it,
//! over the queue of this machine's Postfix. `queue --crowd COUNTS`: how long fifty readers at once wait.
//!
//! The lab sets all of it up (`tests/lab/real_queue.rs`): the program at `/bartleby/`, the script at `/perl/`, and a
//! lister that adds a line to the file COUNTS each time it runs. ab(1), of Apache's own tools, asks.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{READERS, Result};

/// Rounds, in each of which every row is asked in turn.
const ROUNDS: usize = 7;

/// Requests of a row in a round, two at a time.
const REQUESTS: u32 = 100;

/// What is asked for. The script stands there twice: how far its two medians lie apart is the machine's noise.
const ROWS: [(&str, &str); 5] = [
    ("bartleby html", "/bartleby/?format=html"),
    ("bartleby text", "/bartleby/?format=text"),
    ("bartleby json", "/bartleby/?format=json"),
    ("Perl html", "/perl/"),
    ("Perl html, again", "/perl/"),
];

/// How often the page is to come, for each time that the script does, with an empty queue.
const GOAL: f64 = 1.5;

/// How many readers come from one address: more are turned away.
const OF_ONE_ADDRESS: usize = 10;

/// How many listings fifty readers may start.
const LISTINGS: usize = 3;

/// How many times as long as one alone the last of fifty may wait.
const WAIT: f64 = 3.0;

/// What ab(1) found.
struct Found {
    /// Requests a second.
    rate: f64,
    /// Seconds in all.
    seconds: f64,
}

/// Prints the table of rates, and whether the goal is reached.
pub fn rates(what: &str) -> Result<()> {
    let mut found = vec![Vec::new(); ROWS.len()];
    // The first of each finds nothing in the disk's cache, and nothing remembered.
    for (_, path) in ROWS {
        ab("127.0.0.1", path, 10, 2)?;
    }
    for _ in 0..ROUNDS {
        for (rates, (_, path)) in found.iter_mut().zip(ROWS) {
            rates.push(ab("127.0.0.1", path, REQUESTS, 2)?.rate);
        }
    }
    let medians: Vec<f64> = found.iter_mut().map(|rates| median(rates)).collect();
    let [page, .., perl, again] = medians.as_slice() else { return Err("no rows".into()) };
    println!("\nbehind Apache, {what}: requests a second, medians of {ROUNDS} times {REQUESTS}, two at a time");
    println!("{:24}{:>10}{:>10}{:>20}", "", "a second", "/ Perl's", "lowest to highest");
    for ((median, rates), (name, _)) in medians.iter().zip(&found).zip(ROWS) {
        let (lowest, highest) = (rates.first().unwrap_or(&0.0), rates.last().unwrap_or(&0.0));
        println!("  {name:22}{median:>10.1}{:>10.2}{:>20}", median / perl, format!("{lowest:.1} to {highest:.1}"));
    }
    println!("  the noise: the script's second median is {:.2} x its first", again / perl);
    let verdict = if page / perl >= GOAL { "reached" } else { "MISSED" };
    println!(
        "  the page comes {:.2} x as often as the script's; to reach, with an empty queue: {GOAL}  {verdict}",
        page / perl
    );
    Ok(())
}

/// Prints how long the last of many readers at once waits, and how many listings they start.
pub fn crowd(counts: &Path) -> Result<()> {
    let (_, page) = ROWS[0];
    let listings = || -> Result<usize> { Ok(fs::read_to_string(counts)?.lines().count()) };
    let mut alone: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        alone.push(ab("127.0.0.1", page, 1, 1)?.seconds);
        // What one has listed is not shown to the next.
        std::thread::sleep(std::time::Duration::from_secs(6));
    }
    let alone = median(&mut alone);
    let (mut slowest, mut most) = (Vec::new(), 0);
    for _ in 0..3 {
        let before = listings()?;
        let addresses: Vec<String> = (1..=READERS / OF_ONE_ADDRESS).map(|number| format!("127.0.1.{number}")).collect();
        let started = std::time::Instant::now();
        let each = std::thread::scope(|scope| {
            let reader = |address| {
                scope.spawn(move || {
                    ab(address, page, OF_ONE_ADDRESS as u32, OF_ONE_ADDRESS).map_err(|error| error.to_string())
                })
            };
            let readers: Vec<_> = addresses.iter().map(|address| reader(address)).collect();
            readers.into_iter().map(|reader| reader.join()).collect::<Vec<_>>()
        });
        for found in each {
            found.map_err(|_| "ab was not waited for")??;
        }
        slowest.push(started.elapsed().as_secs_f64());
        most = most.max(listings()? - before);
        std::thread::sleep(std::time::Duration::from_secs(6));
    }
    let times = median(&mut slowest) / alone;
    println!(
        "\nbehind Apache, {READERS} readers at once: {most} listings at most; the last has its page after {times:.1} x one reader's time"
    );
    let verdict = |reached| if reached { "reached" } else { "MISSED" };
    println!("  to reach: at most {LISTINGS} listings  {}", verdict(most <= LISTINGS));
    println!("  to reach: at most {WAIT} x one reader's time  {}", verdict(times <= WAIT));
    Ok(())
}

/// Asks Apache so often, from an address of this machine, and so many at a time; anything but 200 is an error.
fn ab(address: &str, path: &str, requests: u32, at_a_time: usize) -> Result<Found> {
    let output = Command::new("ab")
        .args(["-q", "-l", "-B", address, "-n", &requests.to_string(), "-c", &at_a_time.to_string()])
        .arg(format!("http://127.0.0.1{path}"))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = |label: &str| -> Option<f64> {
        said.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
    };
    let failed = number("Failed requests:").unwrap_or(1.0) + number("Non-2xx responses:").unwrap_or(0.0);
    match (number("Requests per second:"), number("Time taken for tests:")) {
        (Some(rate), Some(seconds)) if output.status.success() && failed == 0.0 => Ok(Found { rate, seconds }),
        _ => Err(format!("{path}: {said}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The middle one; sorts them.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
