//! What `bartleby --help` prints.

pub(super) const HELP: &str = "\
Shows what waits in this machine's mail queue, and runs it.

Usage: bartleby list [--format text|json|csv] [--watch]
       bartleby flush [--wait] [--despite-refusals|--despite-overdue]
                      [all|domain:NAME|id:ID]
       bartleby watch [--once]
       bartleby outage [--format text|json] [N]
       bartleby check [-w|--warning RANGE] [-c|--critical RANGE]
                      [--age-warning AGE] [--age-critical AGE]
                      [--return-warning AGE] [--return-critical AGE]
       bartleby metrics
       bartleby doctor [--web URL] [--rehearse]
       bartleby as-root
       bartleby -V|--version
       bartleby -h|--help

  list    Prints every waiting message, with its sender, recipients and
          reasons, then the totals and the room left on disk; --watch prints it
          again every few seconds.
          Exit status: 0 when all was listed, 69 when it could not be.
  flush   Runs the queue now, under the same cool-down as the page's button. Before a
          run of all or of a domain, the primary is asked whether it would accept
          some of the recipients. Where it refuses half of them or more, nothing is
          run, as their mail would go back, unless --despite-refusals says so; nor
          where it accepts none now and messages are past their time, unless
          --despite-overdue does.
          Exit status: 0 started, 75 too soon after the last run, 65 nothing of the
          kind waits, 69 not possible, or mail would go back. With --wait it shows what comes of the run,
          until the queue stops changing, and ends with 0 when all messages are gone
          (delivered, or returned to the sender: which of the two, the queue seldom
          shows) and none was seen going back, 2 when none is gone, else 1.
  watch   Looks at the primary and at the queue each minute, and runs the queue once
          when the primary has come back, three looks in a row have seen it up, and
          mail is waiting: one message first, and the rest when that is gone. It runs
          nothing against the primary's refusals, and with a growing delay where the
          primary keeps going up and down. --once is for cron or a timer: it looks
          once. Exit status: 0, or 69 when it could not look or not run.
  outage  The receipt of an outage of the primary, of number N or the latest one: from
          when to when, seen by whom, how much waited at most, and each queue run with
          what it delivered, returned and left. Exit status: 0, 65 when it is not on
          record, 69 when the record can't be read.
  check   One line for Nagios, Icinga and their like, with performance data: how many
          messages wait (-w, -c: threshold ranges), for how long (--age-warning,
          --age-critical: seconds, or 5m, 2h, 1d), how soon the first goes back to its
          sender (--return-warning, --return-critical: less than that is left), and
          the room left on disk.
          Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, as for a queue that
          could not be listed.
  metrics Prints OpenMetrics. Exit status: 0 when the queue could be listed, else 69.
  doctor  Checks whether everything is in place for the user that asks, and names
          the exact fix for what is not; best asked as the web server's user:
          sudo -u www-data bartleby doctor. --web http://localhost/bartleby/ asks the
          web server, too: does the page come, and are strangers turned away? --rehearse
          plays an outage without sending or running anything: does this host take
          known recipients and refuse unknown ones, does the primary accept some, can
          the mail log be read, does watch look? Exit status: 0 all is well, 1 not, or
          not all could be checked.
  as-root For a rule of sudo or doas: does as root what one line of JSON on standard
          input asks for. It can list the queue, run it, and print why messages wait,
          when they are tried next, and what the mail log says of them, and nothing
          else; see bartleby(8).

The configuration is /etc/bartleby.toml or the file that BARTLEBY_CONFIG names;
none is needed. A mistake in it ends with exit status 78; so does, for root, one
that another user could change.
With GATEWAY_INTERFACE in the environment this is a CGI program (RFC 3875),
whatever its arguments.
";
