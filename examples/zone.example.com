; The zone of example.com, as far as mail is concerned (RFC 1035; the MX records: RFC 5321, section 5.1).
;
; Senders try the mail exchanger with the lowest number first: the primary. Only when that one does not answer
; do they try the other: the backup, which hands its mail on to any server with a lower number than its own.

$ORIGIN example.com.
$TTL 3600

@           IN  SOA   ns1.example.net. hostmaster.example.com. (
                      2026112301   ; serial
                      7200         ; refresh
                      1800         ; retry
                      1209600      ; expire
                      3600 )       ; negative answers

            IN  NS    ns1.example.net.
            IN  NS    ns2.example.net.

; A mail exchanger is a name with addresses, never an alias (RFC 2181, section 10.3).
            IN  MX    10 tuccster.example.com.
            IN  MX    20 bartleby.example.net.

sub         IN  MX    10 tuccster.example.com.
            IN  MX    20 bartleby.example.net.

tuccster    IN  A     192.0.2.10
            IN  AAAA  2001:db8:1::10

; The backup's addresses are in its own zone, best with another provider, and name servers likewise: it is to be
; found while everything here is down. In the zone of example.net:
;
;   bartleby    IN  A     198.51.100.20
;               IN  AAAA  2001:db8:2::20
;
; Both addresses need a PTR record that leads back to the name: the backup sends, too.
