//! What a queue leaves undone for a moment because others are quicker.

/// The event for what the guest has sent, which only lets it reuse its pages.
///
/// Where the guest has just been given something, it is woken anyway, and looks at its own ring by itself when it answers. So the event
/// is put off for the moment for which the answer is looked for: that mostly spares this domain a call of the hypervisor before the
/// guest gets its packet, and the guest an interrupt.
#[derive(Debug, Default)]
pub struct PutOff {
    /// Turns that it may still wait; 0 if there is none.
    turns: u8,
}

impl PutOff {
    /// Turns that it may wait: that of its packets, and the one that finds no more of what is for the guest.
    const TURNS: u8 = 2;

    /// Puts an event off. One that was put off before is the past: the guest has asked for this one since.
    pub const fn begin(&mut self) {
        self.turns = Self::TURNS;
    }

    /// Another turn has passed. True: it is time to send it, if there is one.
    pub const fn pass(&mut self) -> bool {
        let last = self.turns == 1;
        self.turns = self.turns.saturating_sub(1);
        last
    }

    /// Ends it; whether there was one.
    pub const fn end(&mut self) -> bool {
        core::mem::replace(&mut self.turns, 0) > 0
    }
}

/// Others of this domain go first for a while.
///
/// What a guest has sent to another guest is in the hands of that one's queue, which may have been at work as this one was woken, and then
/// waits for this CPU while this one looks for an answer in vain, sends events and goes to sleep. That it is so is seen by such a look.
/// It is of no use where the guests share the CPU too and wait for that sleep themselves, where [`oxen_backend::Linger`] looks in vain.
#[derive(Debug, Default)]
pub struct Courtesy {
    /// How often they still do.
    times: u8,
}

impl Courtesy {
    /// How often others go first until there is another look, in case that it was a guest's slowness.
    const TIMES: u8 = 63;

    /// They do from now on.
    pub const fn begin(&mut self) {
        self.times = Self::TIMES;
    }

    /// Whether they go first this time.
    pub const fn is_due(&mut self) -> bool {
        let due = self.times > 0;
        self.times = self.times.saturating_sub(1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_first_until_the_next_look() {
        let mut courtesy = Courtesy::default();
        assert!(!courtesy.is_due());
        courtesy.begin();
        assert!((0..63).all(|_| courtesy.is_due()));
        assert!(!courtesy.is_due());
    }

    #[test]
    fn an_event_is_put_off_for_a_few_turns_only() {
        let mut put_off = PutOff::default();
        assert!(!put_off.pass() && !put_off.end());
        put_off.begin();
        assert_eq!(
            [(); 4].map(|()| put_off.pass()),
            [false, true, false, false]
        );
        put_off.begin();
        put_off.pass();
        put_off.begin();
        assert!(!put_off.pass() && put_off.end() && !put_off.end());
    }
}
