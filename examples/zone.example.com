; The DNS zone of a domain with a backup MX. Senders try the smallest number first; they come to the backup MX
; only when no server of a smaller number answers (RFC 5321, section 5.1). Both names have addresses of their
; own, never CNAMEs (RFC 2181, section 10.3), and each address needs a PTR record that leads back to its name.

$ORIGIN example.com.
$TTL 3600

@           IN SOA   ns1 hostmaster ( 2026112301 7200 3600 1209600 3600 )
            IN NS    ns1
            IN NS    ns2
            IN MX 10 tuccster       ; the primary
            IN MX 20 bartleby       ; the backup MX

sub         IN MX 10 tuccster
            IN MX 20 bartleby

tuccster    IN A     192.0.2.25
            IN AAAA  2001:db8::25

; Elsewhere, the second name server, too: one line that is down would take both down otherwise.
bartleby    IN A     198.51.100.25
            IN AAAA  2001:db8:1::25

ns1         IN A     192.0.2.53
ns2         IN A     198.51.100.53
