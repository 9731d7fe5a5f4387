//! The states of xenbus (`public/io/xenbus.h`), and what a back end does about them.

/// How far one end of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known of it.
    Unknown,
    /// It begins.
    Initialising,
    /// The back end has said what it offers.
    InitWait,
    /// The front end has said where its rings are.
    Initialised,
    /// It is at work.
    Connected,
    /// It is being closed.
    Closing,
    /// It is closed.
    Closed,
    /// It is being changed.
    Reconfiguring,
    /// It was changed.
    Reconfigured,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The state that a node's value means. What is no state counts as unknown: guests write it.
    pub fn from_text(text: &str) -> Self {
        let number = text.parse::<usize>().ok();
        number
            .and_then(|number| Self::ALL.get(number).copied())
            .unwrap_or(Self::Unknown)
    }

    /// As it is written.
    pub fn text(self) -> String {
        (self as u8).to_string()
    }
}

/// What is known about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The front end's state; `None` if its node is gone.
    pub front: Option<State>,
    /// Ours, as xenstore has it.
    pub back: State,
    /// Whether the device shall stay when the guest closes it.
    pub online: bool,
    /// Whether it is served now.
    pub serving: bool,
    /// Whether an earlier worker has left a journal of the rings that the guest has now.
    pub begun: bool,
}

/// What to do next. After each but `Wait` one looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Say what is offered and go to `InitWait`.
    Offer,
    /// Begin to serve and go to `Connected`.
    Connect,
    /// Begin to serve as before; the guest notices nothing. In particular `Connected` is not written again: Linux takes that for a
    /// second connection.
    Resume,
    /// Stop serving.
    Stop,
    /// Go to a state.
    Enter(State),
}

/// The table.
pub fn next_step(now: Situation) -> Step {
    use State::{
        Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
        Reconfiguring, Unknown,
    };
    match (now.front, now.back) {
        // The guest is gone, or has closed its end.
        (None | Some(Unknown | Closed), _) if now.serving => Step::Stop,
        (None | Some(Unknown | Closed), Closed) => Step::Wait,
        (None | Some(Unknown | Closed), _) => Step::Enter(Closed),
        // It begins, perhaps anew without having closed (another kernel was started in it).
        (Some(Initialising), _) if now.serving => Step::Stop,
        (Some(Initialising), Closing) => Step::Enter(Closed),
        (Some(Initialising), InitWait) => Step::Wait,
        (Some(Initialising), Closed) if !now.online => Step::Wait,
        (Some(Initialising), _) => Step::Offer,
        (Some(InitWait | Reconfiguring | Reconfigured), _) => Step::Wait,
        // It is ready.
        (Some(Initialised | Connected), Initialising) => Step::Offer,
        (Some(Initialised | Connected), InitWait) => Step::Connect,
        // While the toolstack wants it closed the guest may still need it to write what it has to.
        (Some(Initialised | Connected), Connected | Closing) if !now.serving => Step::Resume,
        (Some(Initialised | Connected), _) => Step::Wait,
        // Linux says so too of a disk that is still mounted (before 5.14), and goes on writing. It is served until the guest has closed it.
        (Some(Closing), Connected | Closing) if now.begun && !now.serving => Step::Resume,
        (Some(Closing), Closed) if now.serving => Step::Stop,
        (Some(Closing), Closing | Closed) => Step::Wait,
        (Some(Closing), _) => Step::Enter(Closing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_have_the_public_numbers() {
        assert_eq!(State::from_text("4"), State::Connected);
        assert_eq!(State::Closed.text(), "6");
        for nonsense in ["", "9", "-1", "4 ", "x"] {
            assert_eq!(State::from_text(nonsense), State::Unknown, "{nonsense:?}");
        }
    }

    /// Does what the table says until there is nothing to do.
    fn settle(mut now: Situation) -> (Situation, Vec<Step>) {
        let mut steps = Vec::new();
        loop {
            let step = next_step(now);
            match step {
                Step::Wait => return (now, steps),
                Step::Offer => (now.back, now.begun) = (State::InitWait, false),
                Step::Connect => {
                    (now.back, now.serving, now.begun) = (State::Connected, true, true)
                }
                Step::Resume => (now.serving, now.begun) = (true, true),
                Step::Stop => (now.serving, now.begun) = (false, false),
                Step::Enter(state) => (now.back, now.begun) = (state, now.begun && now.serving),
            }
            steps.push(step);
            assert!(steps.len() < 8, "it never settles: {steps:?}");
        }
    }

    fn situation(front: State, back: State, serving: bool) -> Situation {
        Situation {
            front: Some(front),
            back,
            online: true,
            serving,
            begun: serving,
        }
    }

    #[test]
    fn a_device_is_connected_served_and_closed() {
        let (now, _) = settle(situation(State::Initialising, State::Initialising, false));
        assert_eq!(now.back, State::InitWait);
        let (now, steps) = settle(Situation {
            front: Some(State::Initialised),
            ..now
        });
        assert_eq!(steps, [Step::Connect]);
        // The toolstack wants it away: it is served until the guest agrees.
        let (now, steps) = settle(Situation {
            back: State::Closing,
            online: false,
            ..now
        });
        assert_eq!((now.serving, steps.len()), (true, 0));
        let (now, _) = settle(Situation {
            front: Some(State::Closed),
            ..now
        });
        assert_eq!((now.back, now.serving), (State::Closed, false));
    }

    #[test]
    fn who_starts_again_resumes_without_a_word() {
        for front in [State::Initialised, State::Connected] {
            let (_, steps) = settle(situation(front, State::Connected, false));
            assert_eq!(steps, [Step::Resume]);
        }
    }

    /// Linux before 5.14 says that it closes a disk that is in use, and writes to it until it is not.
    #[test]
    fn who_closes_is_served_until_it_has() {
        let (now, steps) = settle(situation(State::Closing, State::Connected, true));
        assert_eq!(steps, [Step::Enter(State::Closing)]);
        assert!(now.serving);
        // Also by the next worker.
        let (now, steps) = settle(Situation {
            serving: false,
            ..now
        });
        assert_eq!((now.serving, &steps[..]), (true, &[Step::Resume][..]));
        let (now, steps) = settle(Situation {
            front: Some(State::Closed),
            ..now
        });
        assert_eq!(steps, [Step::Stop, Step::Enter(State::Closed)]);
        assert!(!now.serving);
        // One that never had a ring has nothing to be served.
        let (now, steps) = settle(situation(State::Closing, State::InitWait, false));
        assert_eq!(steps, [Step::Enter(State::Closing)]);
        assert!(!now.serving);
    }

    #[test]
    fn what_was_closed_for_a_fault_waits_for_the_guest_to_begin_anew() {
        let (now, steps) = settle(situation(State::Connected, State::Closed, false));
        assert_eq!((now.serving, steps.len()), (false, 0));
        let (now, _) = settle(situation(State::Initialising, State::Closed, false));
        assert_eq!(now.back, State::InitWait);
    }

    fn states() -> impl Strategy<Value = State> {
        prop::sample::select(&State::ALL[..])
    }

    proptest! {
        #[test]
        fn every_situation_settles(
            front in prop::option::of(states()),
            back in states(),
            online: bool,
            serving: bool,
            begun: bool,
        ) {
            let (now, _) = settle(Situation { front, back, online, serving, begun });
            // Nobody is served whose end is not ready.
            let ready = matches!(
                front,
                Some(State::Initialised | State::Connected | State::InitWait | State::Closing
                    | State::Reconfiguring | State::Reconfigured)
            );
            prop_assert!(ready || !now.serving);
        }
    }
}
