//! Exim's configuration: for which domains it relays mail, and in which file its settings count.
//!
//! Sources: the Exim specification's chapters "Domain, host, address, and local part lists" and "The Exim command line",
//! and Debian's update-exim4.conf(8).

use std::fs;
use std::path::{Path, PathBuf};

use crate::mta::Relaying;
use crate::mta::Search;
use crate::mta::relay::{domains, keys};
use crate::mta::remedy::{Refused, Remedy};
use crate::mta::trouble::Act;

/// The answers to `-bP`: `domainlist relay_to_domains = example.com : lsearch;/etc/exim4/relay_domains`, where `read`
/// reads files, and `primary_hostname = bartleby.example.net`.
pub(super) fn relaying(output: &str, read: impl Fn(&str) -> String) -> Relaying {
    let value = |start: &str| {
        let line = output.lines().find(|line| line.starts_with(start))?;
        line.split_once('=').map(|(_, value)| value.trim())
    };
    let named = items(value("domainlist relay_to_domains").unwrap_or_default()).into_iter().flat_map(|item| {
        let file = item.split_once(';').map_or(&*item, |(_, file)| file);
        if file.starts_with('/') { domains(&keys(&read(file))) } else { domains(&item) }
    });
    let own_name = value("primary_hostname").map(str::to_owned);
    Relaying { domains: named.collect(), own_name, just_changed: None }
}

/// The items of a list, which may begin with `<` and the sign that parts them in place of the colon (specification,
/// "Changing list separators"); twice that sign is the sign itself. Debian writes `dc_relay_domains='a;b'` as `<; a;b`.
fn items(list: &str) -> Vec<String> {
    let (separator, list) = match list.strip_prefix('<').map(|rest| (rest.chars().next(), rest)) {
        Some((Some(separator), rest)) if !separator.is_alphanumeric() => (separator, &rest[separator.len_utf8()..]),
        _ => (':', list),
    };
    let mut items = vec![String::new()];
    let mut signs = list.chars().peekable();
    while let Some(sign) = signs.next() {
        match items.last_mut() {
            Some(item) if sign != separator || signs.next_if_eq(&separator).is_some() => item.push(sign),
            _ => items.push(String::new()),
        }
    }
    items.into_iter().map(|item| item.trim().to_owned()).collect()
}

/// A file of Exim's own configuration, which counts in place of all that Debian puts together (update-exim4.conf(8)).
const WHOLE: &str = "/etc/exim4/exim4.conf";

/// What Debian puts the configuration together from: this, or the files of a folder.
const TEMPLATE: &str = "/etc/exim4/exim4.conf.template";
const PART: &str = "/etc/exim4/conf.d/main/00_bartleby";

/// Debian's settings, which say which of the two.
const DEBIANS: &str = "/etc/exim4/update-exim4.conf.conf";

/// The file in which a setting counts; one in any other is passed over without a word.
pub(super) fn settings_file(search: &Search) -> Option<PathBuf> {
    if search.below_root(Path::new(WHOLE)).is_file() {
        return Some(WHOLE.into());
    }
    let text = fs::read_to_string(search.below_root(Path::new(DEBIANS))).ok()?;
    let value = text.lines().filter_map(|line| line.trim().strip_prefix("dc_use_split_config=")).next_back()?;
    Some(if value.trim_matches(['\'', '"']) == "true" { PART } else { TEMPLATE }.into())
}

/// A rule, or settings, allow this user to list and to run the queue. Only a rule opens the message log.
pub(in crate::mta) fn remedy(refused: &Refused<'_>) -> Remedy {
    const SETTINGS: &str = "set queue_list_requires_admin = false and prod_requires_admin = false";
    let setting = match refused.settings.map(|file| (file, file.to_str())) {
        Some((_, Some(PART))) => format!(
            "as root: printf 'queue_list_requires_admin = false\\nprod_requires_admin = false\\n' > {PART} && \
             update-exim4.conf && systemctl restart exim4"
        ),
        Some((_, Some(TEMPLATE))) => {
            format!("at the top of {TEMPLATE}, {SETTINGS}; then as root: update-exim4.conf && systemctl restart exim4")
        }
        Some((file, _)) => format!("at the top of {}, {SETTINGS}, then restart Exim", file.display()),
        None => format!(
            "in Exim's main configuration (Debian: {TEMPLATE} or a file in /etc/exim4/conf.d/main, then \
             update-exim4.conf), {SETTINGS}, then restart Exim"
        ),
    };
    Remedy::Rule(match refused.act {
        Act::List | Act::Flush => {
            format!("{}. Or without a rule, {setting}; the reasons stay closed then", refused.rule(&["-bp", "-qf"]))
        }
        Act::Explain => format!("Only root and Exim's administrators may read them. {}", refused.rule(&[])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::exim::Exim;
    use crate::mta::{Facts, Mta};
    use crate::system::Account;

    #[test]
    fn the_remedy_names_the_one_file_that_counts() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/exim4")).unwrap();
        let remedy = || {
            let exim = Exim::at(&Search::below(root.path()));
            let account = Account { uid: 33, name: "www-data".into(), bound: false };
            let facts = Facts { flush_needs_admin: Some(true), ..Facts::default() };
            exim.flush_obstacle(&facts, &account).unwrap().remedy()
        };
        let files = [WHOLE, TEMPLATE, PART];
        let named = |remedy: &str| {
            files.map(|file| remedy.contains(&format!("{file} ")) || remedy.contains(&format!("{file},")))
        };
        assert!(remedy().contains("in Exim's main configuration"), "{}", remedy());
        let write = |file: &str, text: &str| fs::write(root.path().join(file.trim_start_matches('/')), text).unwrap();
        write(DEBIANS, "# x\ndc_use_split_config='false'\n");
        assert_eq!(named(&remedy()), [false, true, false], "{}", remedy());
        write(DEBIANS, "dc_use_split_config='true'\n");
        assert_eq!(named(&remedy()), [false, false, true], "{}", remedy());
        write(WHOLE, "");
        assert_eq!(named(&remedy()), [true, false, false], "{}", remedy());
    }

    #[test]
    fn relay_domains_are_read_with_every_separator() {
        let read = |list: &str| {
            let output = format!("domainlist relay_to_domains = {list}\nprimary_hostname = bartleby.example.net\n");
            relaying(&output, |file| format!("# of {file}\nfile.example: x\n"))
        };
        let own_name = Some("bartleby.example.net".to_owned());
        for (list, domains) in [
            ("example.com : sub.example.com", &["example.com", "sub.example.com"][..]),
            ("<; example.com;example.org", &["example.com", "example.org"]),
            ("<, example.com, /etc/exim4/domains", &["example.com", "file.example"]),
            ("lsearch;/etc/exim4/relay_domains", &["file.example"]),
            ("<; lsearch;;/etc/exim4/relay_domains ; example.com", &["file.example", "example.com"]),
            ("", &[]),
        ] {
            let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
            assert_eq!(read(list), Relaying { domains, own_name: own_name.clone(), just_changed: None }, "{list}");
        }
    }
}
