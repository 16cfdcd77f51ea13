//! One look at everything: what every answer, and every command that tells something, is made from.

pub mod disk;
pub mod history;

use std::io;
use std::os::fd::AsFd;

use self::disk::Mounts;
use crate::context::Context;
use crate::flush::Rules;
use crate::flush::outcome::Followed;
use crate::listing;
use crate::listing::reasons::Reasons;
use crate::mta::trouble::Trouble;
use crate::primary::Outlook;
use crate::queue::{Message, NoRows, NotKept, Row, Selection};
use crate::request::{Asked, Format};
use crate::sandbox::Cage;
use crate::system;
use crate::view::{Report, sentences};

/// Lists for one answer, as long as somebody reads our standard output. Returns the rows of the page that
/// was asked for; where none was, each message that matches is passed on to `each`.
///
/// # Errors
/// Those of `each`.
pub fn look(
    context: &Context,
    asked: &Asked,
    each: &mut dyn FnMut(&Message<'_>) -> io::Result<()>,
) -> io::Result<(Report, Vec<Row>)> {
    let now = context.clock.now;
    let stdout = io::stdout();
    let mut written = Ok(());
    // Nothing of it is read so far. Whatever takes files, programs or connections comes before that.
    let begun = listing::begin(context, Some(stdout.as_fd()));
    let primaries = Outlook::begin(context);
    let rules = Rules::ask(context);
    let mounts = Mounts::find();
    let reasons = asked.window.map(|_| Reasons::begin(context));
    let mut followed = asked.flushed.and_then(|number| Followed::find(context.records.as_ref().ok()?, number));
    let folder = context.folder.as_deref();
    let overflow = asked.window.and(folder).map(system::unlinked_file).transpose();
    let (overflow, no_overflow) = overflow.map_or_else(|error| (None, Some(error)), |file| (file, None));
    let mut selection =
        asked.window.map(|window| Selection::new(asked.filter.clone(), asked.order, window, now, overflow));
    if asked.format == Format::Html {
        // The page is made in memory.
        selection = selection.map(Selection::abridged);
    }
    let begun = begun.at_first_byte();
    let cage = Cage::enter(folder);
    let mut listing = begun.read(&cage, &mut |message| {
        followed.iter_mut().for_each(|followed| followed.add(message));
        match &mut selection {
            Some(selection) => selection.offer(message),
            None if written.is_ok() && asked.filter.matches(message, now) => written = each(message),
            None => {}
        }
    });
    written?;
    let matched = selection.as_ref().map_or(0, Selection::matched);
    let complete = listing.trouble.is_none();
    let mut rows = selection.map_or(Ok(Vec::new()), Selection::into_rows).unwrap_or_else(|why| {
        if let (NoRows::NotKept(NotKept::NoFile), Some(error)) = (&why, &no_overflow) {
            system::log(&format!("no file for the rows of the page could be made in the state directory: {error}"));
        }
        listing.trouble.get_or_insert(Trouble::NoPage { why });
        Vec::new()
    });
    if let Some(trouble) = &listing.trouble {
        system::log(&trouble.to_string());
    }
    let unexplained = reasons.and_then(|reasons| reasons.explain(context, &mut rows).err());
    let followed = followed.map(|followed| followed.outcome(context.clock.now, complete));
    let selection = asked.window.map(|window| (window, matched));
    let no_reasons =
        context.source.as_ref().is_ok_and(|source| source.mta.reason_command(source.mta.sample_id()).is_some());
    let note = match () {
        () if no_reasons && asked.filter.reads_reasons() => Some(sentences::BLIND),
        () if no_reasons && !context.config.mta.list_command.is_empty() => Some(sentences::NO_REASONS),
        () => None,
    };
    let outlook = primaries.outlook(context.records.as_ref(), context.clock.now, context.seen_by);
    let mut report = Report {
        unexplained,
        note,
        followed,
        outlook,
        ..Report::gather(context, listing, &cage, selection, &mounts, &rules)
    };
    if let (Ok(records), None) = (&context.records, &report.listing.trouble) {
        let sample = history::sample(context.clock.now, &report.listing.summary, &report.filesystems);
        // Where there is no room for it, the page says so itself.
        report.history = records.add_sample(&sample).unwrap_or_default();
        // At most one a minute is kept; this one is the latest.
        report.history.pop_if(|last| sample.taken - last.taken < 60);
        report.history.push(sample);
    }
    Ok((report, rows))
}
