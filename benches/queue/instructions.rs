//! How many instructions a page takes, as valgrind's callgrind counts them: by these, two versions can be compared on a
//! machine whose times differ from run to run. What the kernel does is not among them.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::lister::{self, Form};
use crate::{Bench, Lister, Result};

/// The queue's length, in messages. Under valgrind a program takes fifty times as long.
const MESSAGES: u32 = 10_000;

impl Bench {
    /// Prints the instructions of a page in each form, in millions.
    pub fn instructions(&self) -> Result<()> {
        println!("\nmillion instructions, {MESSAGES} messages");
        println!("{:24}{:>10}{:>10}{:>15}{:>15}", "", "html", "json", "before, html", "before, json");
        // The older program has a state folder of its own: its database may be another one.
        let programs = [("counted", 10, Some(&self.program)), ("counted-before", 15, self.before.as_ref())];
        for form in Form::ALL {
            let file = self.folder.join("queue");
            lister::write_queue(form, File::create(&file)?, MESSAGES, None)?;
            print!("{:24}", form.command());
            for (name, width, program) in programs {
                let Some(program) = program else { continue };
                let lister = Lister::new(name, form, &[&"/bin/cat", &file]);
                for format in ["html", "json"] {
                    let variables = self.request(&lister, &format!("format={format}"))?;
                    let Some(count) = count(program, &variables)? else {
                        println!("not counted: there is no valgrind");
                        return Ok(());
                    };
                    if count < u64::from(MESSAGES) * 100 {
                        return Err("valgrind did not see the process that reads the listing".into());
                    }
                    print!("{:width$.1}", count as f64 / 1e6);
                }
            }
            println!();
        }
        Ok(())
    }
}

/// The instructions of a program and the branches of itself, in all, when it is run with just these environment
/// variables. Programs that it starts don't count. `None` where there is no valgrind.
///
/// # Errors
/// The program fails.
fn count(program: &Path, variables: &[(&str, OsString)]) -> Result<Option<u64>> {
    let mut valgrind = Command::new("valgrind");
    // In its sandbox the program may not write a file.
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = match valgrind.env_clear().envs(variables.iter().cloned()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("under valgrind: {}, {said}", output.status).into());
    }
    // Of each process a line: "==4711== Collected : 97189800".
    Ok(Some(said.lines().filter_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok()).sum()))
}
