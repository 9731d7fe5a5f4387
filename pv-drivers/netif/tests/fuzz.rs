//! What a guest may put on its ring. `tests/fuzz` of the workspace says how inputs are made and kept.

use oxen_fuzz::Target;
use oxen_netif::Status;
use oxen_netif::headers::{complete, transport};
use oxen_netif::transmit::{Assembler, Broken};

/// Slots make packets that are sound, each of whose slots gets one answer, or the peer is broken. The same bytes as a packet are looked
/// at for headers.
#[test]
fn transmit() {
    Target::new(env!("CARGO_MANIFEST_DIR"), "transmit")
        .iterations(100_000)
        .run(|input| (slots(input), headers(input)));
}

fn slots(input: &[u8]) -> (usize, Option<Broken>) {
    let mut assembler = Assembler::new();
    let (mut packets, mut open) = (0, 0);
    for slot in input.chunks_exact(12) {
        let word = |nth: usize| {
            u32::from_le_bytes([slot[nth], slot[nth + 1], slot[nth + 2], slot[nth + 3]])
        };
        open += 1;
        match assembler.slot([word(0), word(4), word(8)]) {
            Ok(false) => {}
            Ok(true) => {
                let packet = assembler.packet();
                assert_eq!(
                    packet.head.responses(&packet.parts, Status::Okay).count(),
                    open
                );
                let total: usize = packet.parts.iter().map(|part| part.length as usize).sum();
                assert!(packet.head.flaw.is_some() || total == usize::from(packet.head.size));
                assert!(
                    (packet.parts.iter())
                        .all(|part| part.offset as usize + part.length as usize <= 4096
                            || packet.head.flaw.is_some())
                );
                (packets, open) = (packets + 1, 0);
            }
            Err(broken) => return (packets, Some(broken)),
        }
        assert!(open < 32, "a packet without an end");
    }
    (packets, None)
}

fn headers(input: &[u8]) -> Option<(u16, u16)> {
    let found = transport(input)?;
    let mut copy = input.to_vec();
    assert!(complete(
        &mut copy,
        found.start.into(),
        found.checksum.into()
    ));
    Some((found.checksum, found.payload - found.start))
}
