//! The page that says why a run was not started: what the main mail server would do with the mail.

use maud::{Markup, html};

use super::{frame, run_form, status};
use crate::flush::rehearsal::{NotRun, Spoken};
use crate::primary::rehearsal::{Asked, Counts};
use crate::queue::Despite;
use crate::text::printable;
use crate::view::Reader;
use crate::view::headline::Tone;

/// The page.
pub(crate) fn not_run(host: &str, not_run: &NotRun) -> Markup {
    frame(
        "Not run",
        Tone::Alarm,
        Reader::Admitted { host },
        &html! {},
        html! {
            section.status.alarm aria-label="The queue was not run" {
                h2.headline { (not_run.headline()) }
                @for sentence in not_run.sentences() { p { bdi { (printable(&sentence)) } } }
                (status::remedy(&not_run.remedy()))
            }
            @for spoken in not_run.asked.iter().filter(|spoken| !spoken.rehearsed.answers.recipients.is_empty()) {
                (table(spoken))
            }
            (run_form(html! {
                input type="hidden" name="despite" value=(not_run.despite().as_str());
                div.run {
                    button name="flush" value=(not_run.target) { (all_the_same(not_run.despite())) }
                    p.soft { (consequence(not_run.despite())) }
                }
            }))
            nav { a href="?" { "Back to the queue" } }
        },
    )
}

fn all_the_same(despite: Despite) -> &'static str {
    match despite {
        Despite::Refusals => "Run it anyway",
        Despite::Overdue => "Try it anyway",
    }
}

fn consequence(despite: Despite) -> &'static str {
    match despite {
        Despite::Refusals => "What the main mail server then refuses goes back to its sender.",
        Despite::Overdue => "What is past its time and is not accepted then goes back to its sender.",
    }
}

/// Each recipient that was asked for, and the answer.
fn table(spoken: &Spoken) -> Markup {
    html! {
        section {
            h2 { "What " bdi { (printable(&spoken.rehearsed.host)) } " said" }
            table {
                thead { tr { th scope="col" { "Recipient" } th scope="col" { "Answer" } th scope="col" { "In its words" } } }
                tbody { @for asked in &spoken.rehearsed.answers.recipients { (row(asked)) } }
            }
        }
    }
}

fn row(asked: &Asked) -> Markup {
    let (answer, class) = match asked.counts {
        Counts::Accepted => ("accepted", "ok"),
        Counts::PutOff => ("put off", "warning"),
        Counts::Refused { .. } => ("refused", "critical"),
    };
    html! {
        tr {
            th scope="row" { bdi { (printable(&asked.recipient)) } }
            td class=(class) { strong { (answer) } }
            td { bdi { (printable(&asked.said.words)) } }
        }
    }
}
