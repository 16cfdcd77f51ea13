//! The lab: the program behind the real Apache, over real mail servers, each set up as the backup MX of
//! `example.com`, `sub.example.com` and `other.example`.
//!
//! It needs root on Debian; elsewhere each test says that it was skipped, or fails where
//! `BARTLEBY_LAB=required` is set. Each test has a machine of its own (see [`machine`]): this one's
//! packages, files, network and mail are not touched. It runs this machine's Debian, or those of `BARTLEBY_RELEASES` (see
//! [`release`]). `make` builds the program; `BARTLEBY_CGI` names another. A mail server joins with a file that implements [`mta::Mta`],
//! its tests below, and its spool's name in `enter.sh`.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod accessibility;
mod apache;
mod as_root;
mod bare;
mod browser;
mod by_itself;
mod client;
mod clocks;
mod comeback;
mod drill;
mod evidence;
mod example;
mod exim;
mod faults;
mod guards;
mod hostile;
mod http;
mod install;
mod instances;
mod layer;
mod load;
mod machine;
mod mails;
mod mta;
mod names;
mod open_copy;
mod opensmtpd;
mod outcome;
mod own_mail;
mod package;
mod page;
mod parts;
mod postfix;
mod primary;
mod programs;
mod real_queue;
mod rebinding;
mod recipes;
mod rehearsal;
mod relay;
mod release;
mod response_headers;
mod rule;
mod sendmail;
mod session;
mod setup;
mod shape;
mod state;
mod story;
mod syslog;
mod wait;
mod web_servers;

use as_root::POSTFIX_WITH_RULES;
use comeback::POSTFIX_WITH_NAMES;
use exim::Exim;
use faults::Script;
use guards::POSTFIX_WITH_BROWSER;
use install::POSTFIX_TO_INSTALL;
use machine::{in_each_lab, in_lab};
use opensmtpd::OpenSmtpd;
use package::POSTFIX_WITH_PACKAGE;
use postfix::Postfix;
use real_queue::POSTFIX_WITH_BENCH;
use sendmail::Sendmail;
use web_servers::POSTFIX_WITH_WEB_SERVERS;

#[test]
fn postfix_as_backup_mx() {
    in_each_lab("postfix_as_backup_mx", &Postfix, postfix::backup_mx);
}

#[test]
fn postfix_refusing_or_down_is_never_an_empty_queue() {
    in_each_lab("postfix_refusing_or_down_is_never_an_empty_queue", &Postfix, postfix::refusing_or_down);
}

#[test]
fn postfix_with_a_primary_that_is_ill() {
    in_each_lab("postfix_with_a_primary_that_is_ill", &Postfix, postfix::ill_primary);
}

#[test]
fn postfix_running_a_part_of_the_queue() {
    in_each_lab("postfix_running_a_part_of_the_queue", &Postfix, parts::of_the_queue);
}

#[test]
fn postfix_on_a_bare_machine() {
    in_lab("postfix_on_a_bare_machine", &Postfix, bare::of_all_but_a_mail_server);
}

#[test]
fn postfix_with_a_second_instance() {
    in_lab("postfix_with_a_second_instance", &Postfix, instances::of_postfix);
}

#[test]
fn the_primary_comes_back() {
    in_lab("the_primary_comes_back", &POSTFIX_WITH_NAMES, comeback::of_the_primary);
}

#[test]
fn another_origin_sets_nothing_off_in_a_browser() {
    in_lab("another_origin_sets_nothing_off_in_a_browser", &POSTFIX_WITH_BROWSER, guards::in_a_browser);
}

#[test]
fn a_name_that_a_stranger_rebinds_reads_and_runs_nothing_in_a_browser() {
    in_lab(
        "a_name_that_a_stranger_rebinds_reads_and_runs_nothing_in_a_browser",
        &POSTFIX_WITH_BROWSER,
        rebinding::of_a_name,
    );
}

#[test]
fn names_through_apache() {
    in_each_lab("names_through_apache", &Postfix, names::through_apache);
}

#[test]
fn the_page_is_for_everybody() {
    in_lab("the_page_is_for_everybody", &POSTFIX_WITH_BROWSER, accessibility::of_every_page);
}

#[test]
fn one_queue_run_at_a_time() {
    in_lab("one_queue_run_at_a_time", &Postfix, guards::one_at_a_time);
}

#[test]
fn a_state_directory_that_is_of_no_use() {
    in_lab("a_state_directory_that_is_of_no_use", &Postfix, state::can_not_be_kept);
}

#[test]
fn sendmail_as_backup_mx() {
    in_each_lab("sendmail_as_backup_mx", &Sendmail, sendmail::backup_mx);
}

#[test]
fn sendmail_refusing_is_never_an_empty_queue() {
    in_each_lab("sendmail_refusing_is_never_an_empty_queue", &Sendmail, sendmail::refusing);
}

#[test]
fn sendmail_with_submitted_mail() {
    in_lab("sendmail_with_submitted_mail", &Sendmail, sendmail::submitted_mail);
}

#[test]
fn sendmail_running_a_part_of_the_queue() {
    in_each_lab("sendmail_running_a_part_of_the_queue", &Sendmail, sendmail::part_of_the_queue);
}

#[test]
fn exim_as_backup_mx() {
    in_each_lab("exim_as_backup_mx", &Exim, exim::backup_mx);
}

#[test]
fn exim_by_its_own_options() {
    in_each_lab("exim_by_its_own_options", &Exim, exim::by_its_own_options);
}

#[test]
fn exim_running_a_part_of_the_queue() {
    in_each_lab("exim_running_a_part_of_the_queue", &Exim, exim::part_of_the_queue);
}

#[test]
fn opensmtpd_as_backup_mx() {
    in_each_lab("opensmtpd_as_backup_mx", &OpenSmtpd, opensmtpd::backup_mx);
}

#[test]
fn opensmtpd_with_doas() {
    in_each_lab("opensmtpd_with_doas", &OpenSmtpd, opensmtpd::with_doas);
}

#[test]
fn opensmtpd_with_paused_mail() {
    in_lab("opensmtpd_with_paused_mail", &OpenSmtpd, opensmtpd::with_paused_mail);
}

#[test]
fn opensmtpd_with_a_route_that_has_just_failed() {
    in_lab("opensmtpd_with_a_route_that_has_just_failed", &OpenSmtpd, opensmtpd::with_a_route_that_has_just_failed);
}

#[test]
fn opensmtpd_running_a_part_of_the_queue() {
    in_each_lab("opensmtpd_running_a_part_of_the_queue", &OpenSmtpd, opensmtpd::part_of_the_queue);
}

#[test]
fn postfix_by_the_one_rule_for_root() {
    in_each_lab("postfix_by_the_one_rule_for_root", &POSTFIX_WITH_RULES, as_root::by_every_tool);
}

#[test]
fn sendmail_by_the_one_rule_for_root() {
    in_each_lab("sendmail_by_the_one_rule_for_root", &Sendmail, as_root::by_every_tool);
}

#[test]
fn exim_by_the_one_rule_for_root() {
    in_each_lab("exim_by_the_one_rule_for_root", &Exim, as_root::by_every_tool);
}

#[test]
fn opensmtpd_by_the_one_rule_for_root() {
    in_each_lab("opensmtpd_by_the_one_rule_for_root", &OpenSmtpd, as_root::by_every_tool);
}

#[test]
fn postfix_says_what_came_of_a_run() {
    in_each_lab("postfix_says_what_came_of_a_run", &POSTFIX_WITH_RULES, outcome::of_a_run);
}

#[test]
fn sendmail_says_what_came_of_a_run() {
    in_each_lab("sendmail_says_what_came_of_a_run", &Sendmail, outcome::of_a_run);
}

#[test]
fn exim_says_what_came_of_a_run() {
    in_each_lab("exim_says_what_came_of_a_run", &Exim, outcome::of_a_run);
}

#[test]
fn opensmtpd_says_what_came_of_a_run() {
    in_each_lab("opensmtpd_says_what_came_of_a_run", &OpenSmtpd, outcome::of_a_run);
}

#[test]
fn rehearsal_with_a_real_postfix() {
    in_lab("rehearsal_with_a_real_postfix", &rehearsal::POSTFIX, rehearsal::with_postfix);
}

#[test]
fn rehearsal_with_a_real_exim() {
    in_lab("rehearsal_with_a_real_exim", &rehearsal::EXIM, rehearsal::with_exim);
}

#[test]
fn rehearsal_with_a_real_opensmtpd() {
    in_lab("rehearsal_with_a_real_opensmtpd", &rehearsal::OPENSMTPD, rehearsal::with_opensmtpd);
}

#[test]
fn rehearsal_with_a_real_sendmail() {
    in_lab("rehearsal_with_a_real_sendmail", &rehearsal::SENDMAIL, rehearsal::with_sendmail);
}

#[test]
fn apache_with_hostile_requests() {
    in_each_lab("apache_with_hostile_requests", &Postfix, hostile::requests);
}

#[test]
fn apache_sends_our_headers_with_every_status() {
    in_each_lab("apache_sends_our_headers_with_every_status", &Postfix, response_headers::with_every_status);
}

#[test]
fn installed_as_the_readme_says() {
    in_each_lab("installed_as_the_readme_says", &POSTFIX_TO_INSTALL, install::as_the_readme_says);
}

#[test]
fn apache_set_up_wrongly_is_found_out() {
    in_each_lab("apache_set_up_wrongly_is_found_out", &POSTFIX_TO_INSTALL, install::set_up_wrongly);
}

#[test]
fn apache_serving_an_open_copy() {
    in_each_lab("apache_serving_an_open_copy", &Postfix, open_copy::shows_nothing);
}

#[test]
fn apache_with_a_lister_that_breaks() {
    in_lab("apache_with_a_lister_that_breaks", &Script, faults::of_the_lister);
}

#[test]
fn apache_on_a_machine_in_need() {
    in_lab("apache_on_a_machine_in_need", &Script, faults::of_the_machine);
}

#[test]
fn apache_with_many_readers() {
    in_lab("apache_with_many_readers", &Script, faults::of_many_readers);
}

#[test]
fn apache_with_slow_readers() {
    in_lab("apache_with_slow_readers", &Script, load::of_slow_readers);
}

#[test]
fn apache_in_a_flood_of_requests() {
    in_lab("apache_in_a_flood_of_requests", &Script, load::of_a_flood);
}

#[test]
fn apache_with_listers_out_of_reach() {
    in_lab("apache_with_listers_out_of_reach", &Script, load::of_listers_out_of_reach);
}

#[test]
#[ignore = "make bench runs it"]
fn a_real_postfix_queue() {
    in_lab("a_real_postfix_queue", &POSTFIX_WITH_BENCH, real_queue::is_measured);
}

#[test]
fn postfix_returns_mail_when_the_page_said() {
    in_lab("postfix_returns_mail_when_the_page_said", &Postfix, clocks::of_postfix);
}

#[test]
fn sendmail_returns_mail_when_the_page_said() {
    in_lab("sendmail_returns_mail_when_the_page_said", &Sendmail, clocks::of_sendmail);
}

#[test]
fn exim_returns_mail_when_the_page_said() {
    in_lab("exim_returns_mail_when_the_page_said", &Exim, clocks::of_exim);
}

#[test]
fn opensmtpd_returns_mail_when_the_page_said() {
    in_lab("opensmtpd_returns_mail_when_the_page_said", &OpenSmtpd, clocks::of_opensmtpd);
}

#[test]
fn postfix_rehearsing_an_outage() {
    in_lab("postfix_rehearsing_an_outage", &Postfix, drill::of_an_outage);
}

#[test]
fn sendmail_rehearsing_an_outage() {
    in_lab("sendmail_rehearsing_an_outage", &Sendmail, drill::of_an_outage);
}

#[test]
fn exim_rehearsing_an_outage() {
    in_lab("exim_rehearsing_an_outage", &Exim, drill::of_an_outage);
}

#[test]
fn opensmtpd_rehearsing_an_outage() {
    in_lab("opensmtpd_rehearsing_an_outage", &OpenSmtpd, drill::of_an_outage);
}

#[test]
fn watch_by_cron_and_by_systemd_as_shipped() {
    in_lab("watch_by_cron_and_by_systemd_as_shipped", &Postfix, by_itself::as_shipped);
}

#[test]
fn behind_lighttpd() {
    in_lab("behind_lighttpd", &POSTFIX_WITH_WEB_SERVERS, web_servers::lighttpd);
}

#[test]
fn behind_nginx() {
    in_lab("behind_nginx", &POSTFIX_WITH_WEB_SERVERS, web_servers::nginx);
}

#[test]
fn behind_caddy() {
    in_lab("behind_caddy", &POSTFIX_WITH_WEB_SERVERS, web_servers::caddy);
}

#[test]
fn behind_busybox() {
    in_lab("behind_busybox", &POSTFIX_WITH_WEB_SERVERS, web_servers::busybox);
}

#[test]
fn apache_with_cgid() {
    in_lab("apache_with_cgid", &POSTFIX_WITH_WEB_SERVERS, web_servers::apache_with_cgid);
}

#[test]
fn apache_with_prefork() {
    in_lab("apache_with_prefork", &POSTFIX_WITH_WEB_SERVERS, web_servers::apache_with_prefork);
}

#[test]
fn apache_with_fcgiwrap() {
    in_lab("apache_with_fcgiwrap", &POSTFIX_WITH_WEB_SERVERS, web_servers::apache_with_fcgiwrap);
}

#[test]
fn apache_behind_nginx() {
    in_lab("apache_behind_nginx", &POSTFIX_WITH_WEB_SERVERS, web_servers::apache_behind_nginx);
}

#[test]
fn the_debian_package() {
    in_each_lab("the_debian_package", &POSTFIX_WITH_PACKAGE, package::of_debian);
}

#[test]
fn a_backup_mail_server_from_nothing_with_postfix() {
    in_each_lab("a_backup_mail_server_from_nothing_with_postfix", &setup::POSTFIX, setup::and_an_outage);
}

#[test]
fn a_backup_mail_server_from_nothing_with_opensmtpd() {
    in_lab("a_backup_mail_server_from_nothing_with_opensmtpd", &setup::OPENSMTPD, setup::and_an_outage);
}

#[test]
fn the_recipes_for_web_servers() {
    in_lab("the_recipes_for_web_servers", &recipes::POSTFIX_WITH_RECIPES, recipes::as_written);
}
