//! Copying inside of and into a buffer that is being unpacked: short runs, tens of millions of them.

/// Copies `length` bytes from `distance` back; the ranges may overlap, and then repeat. Both lie in `out`.
#[inline(never)]
pub fn copy_match(out: &mut [u8], mut to: usize, mut distance: usize, mut length: usize) {
    const STEP: usize = 8;
    if distance < STEP {
        if distance == 1 {
            let byte = out[to - 1];
            out[to..to + length].fill(byte);
            return;
        }
        // After a few bytes one by one, what repeats lies a multiple of the distance back, far enough for steps.
        let wide = distance * STEP.div_ceil(distance);
        let single = length.min(wide - distance);
        for offset in to..to + single {
            out[offset] = out[offset - distance];
        }
        if single == length {
            return;
        }
        (to, length, distance) = (to + single, length - single, wide);
    }
    let (before, after) = out.split_at_mut(to);
    if length.next_multiple_of(STEP) > after.len() {
        for offset in to..to + length {
            out[offset] = out[offset - distance];
        }
        return;
    }
    if distance >= length.next_multiple_of(STEP) {
        // Whole steps may write behind the match's end, which is overwritten later.
        let steps = length.div_ceil(STEP);
        let (from, _) = before[to - distance..].as_chunks::<STEP>();
        let (into, _) = after.as_chunks_mut::<STEP>();
        for (into, from) in into.iter_mut().zip(from).take(steps) {
            *into = *from;
        }
        return;
    }
    let mut done = 0;
    while done < length {
        let from = to - distance + done;
        let Some(&step) = out[from..].first_chunk::<STEP>() else {
            return;
        };
        if let Some(place) = out[to + done..].first_chunk_mut::<STEP>() {
            *place = step;
        }
        done += STEP;
    }
}

/// Copies the first `length` bytes of `from` to the front of `into`. Both have that many.
#[inline(always)]
pub fn copy_short(into: &mut [u8], from: &[u8], length: usize) {
    const STEP: usize = 16;
    if length <= STEP
        && let Some(place) = into.first_chunk_mut::<STEP>()
        && let Some(step) = from.first_chunk::<STEP>()
    {
        // The bytes behind are overwritten later.
        *place = *step;
        return;
    }
    into[..length].copy_from_slice(&from[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_repeat_from_every_distance() {
        for (to, distance) in (1..40).flat_map(|to| (1..=to).map(move |distance| (to, distance))) {
            for length in 1..40 {
                for room in [0, 3, 8] {
                    let mut out: Vec<u8> = (0..(to + length + room) as u8).collect();
                    let mut expected = out.clone();
                    for at in to..to + length {
                        expected[at] = expected[at - distance];
                    }
                    copy_match(&mut out, to, distance, length);
                    let end = to + length;
                    assert_eq!(
                        out[..end],
                        expected[..end],
                        "{to} {distance} {length} {room}"
                    );
                }
            }
        }
    }

    #[test]
    fn short_copies_reach_to_their_length() {
        let from: Vec<u8> = (1..60).collect();
        for length in 0..40 {
            for (room, given) in [(0, 0), (3, 20), (20, 3), (20, 20)] {
                let mut into = vec![0; length + room];
                copy_short(&mut into, &from[..(length + given).min(59)], length);
                assert_eq!(into[..length], from[..length]);
            }
        }
    }
}
