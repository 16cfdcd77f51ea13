#!/usr/bin/perl
# What Bartleby replaces, for `make bench` to compare with: a queue page of the 1990s. It runs the
# listing command in BASELINE_LIST (default: sendmail's), then df, and puts both into one page with
# a link that flushes. It knows nothing about messages and keeps the whole listing in memory.
use strict;
use warnings;

sub escaped {
    my ($text) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    $text =~ s/>/&gt;/g;
    return $text;
}

my $list = $ENV{BASELINE_LIST} || '/usr/sbin/sendmail -bp';

print "Content-Type: text/html\r\n\r\n";
print "<html><head><title>Mail queue</title></head><body><h1>Mail queue</h1>\n";
if (($ENV{QUERY_STRING} || '') eq 'flush') {
    system('/usr/sbin/sendmail', '-q');
    print "<p>The queue is being run.</p>\n";
}
my $queue = `$list`;
my $disks = `df`;
print '<pre>', escaped($queue), "</pre>\n";
print "<p><a href=\"?flush\">Flush the queue</a></p>\n" if $queue ne '';
print '<pre>', escaped($disks), "</pre></body></html>\n";
