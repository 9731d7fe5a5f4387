//! The 16550 serial port.

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};

/// COM1's customary base port.
pub const COM1: u16 = 0x3F8;
/// COM2's.
pub const COM2: u16 = 0x2F8;

/// A port that stays busy this many polls is not there, or its peer holds the line: the byte is dropped.
const PATIENCE: u32 = 200_000;

static PORT: Mutex<Option<Port>> = Mutex::new(None);

struct Port {
    uart: Uart16550<PioBackend>,
    base: u16,
}

/// What `com1=` configures.
#[derive(Clone, Copy, Debug)]
pub struct LineSettings {
    /// First of the eight ports.
    pub base: u16,
    /// Bits a second; `None` keeps what the firmware or the loader set up.
    pub baud: Option<u32>,
}

/// Opens COM1 at 115,200 8n1, before any option has been read.
pub fn init_default() {
    open(LineSettings {
        base: COM1,
        baud: Some(115_200),
    });
}

/// Opens the port that the options name. A port that does not answer is left closed; the log ring still works.
pub fn open(settings: LineSettings) {
    let mut port = PORT.lock();
    // SAFETY: the port range is a UART's by the platform's convention or by the administrator's word, dom0 is refused
    // access to it, and the lock makes this the only user.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(settings.base) }) else {
        return;
    };
    if !uart.check_present() {
        *port = None;
        return;
    }
    let mut config = Config {
        interrupts: IER::empty(),
        ..Config::DEFAULT
    };
    if let Some(baud) = settings.baud {
        config.baud_rate = BaudRate::from_integer(baud);
    }
    *port = uart.init(config).is_ok().then_some(Port {
        uart,
        base: settings.base,
    });
}

/// Base port of the open UART, which guests must not touch.
pub fn base() -> Option<u16> {
    PORT.lock().as_ref().map(|port| port.base)
}

/// Lets the port raise an interrupt for each received byte.
pub fn enable_receive_interrupt() {
    if let Some(port) = PORT.lock().as_mut() {
        port.uart.enable_interrupts(IER::DATA_READY);
    }
}

/// Sends bytes as they are.
pub fn write(bytes: &[u8]) {
    let mut guard = PORT.lock();
    let Some(port) = guard.as_mut() else {
        return;
    };
    let mut rest = bytes;
    let mut polls = 0;
    while !rest.is_empty() && polls < PATIENCE {
        let sent = port.uart.send_bytes(rest);
        rest = &rest[sent..];
        polls = if sent == 0 { polls + 1 } else { 0 };
    }
}

/// Waits until the last byte has left the wire: a machine that is turned off takes what is in the FIFO with it.
pub fn drain() {
    let mut guard = PORT.lock();
    let Some(port) = guard.as_mut() else {
        return;
    };
    for _ in 0..PATIENCE {
        if port.uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            return;
        }
    }
}

/// Takes one received byte, if there is one.
pub fn read() -> Option<u8> {
    PORT.lock().as_mut()?.uart.try_receive_byte().ok()
}

/// # Safety
/// As for [`super::break_locks`].
pub unsafe fn force_unlock() {
    // SAFETY: the caller promises that nobody else is between lock and unlock.
    unsafe { PORT.force_unlock() }
}
