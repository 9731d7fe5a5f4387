//! `console_io`: the control domain's console over the hypervisor's serial line.

use oxen_abi::Errno;
use oxen_abi::numbers::{CONSOLEIO_READ, CONSOLEIO_WRITE};

use super::arguments::{read_bytes, write_bytes};
use super::{Arguments, Outcome};
use crate::console;
use crate::platform::console_input;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// Bytes copied at a time.
const CHUNK: usize = 256;

/// Writes or reads.
pub fn console_io<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, count, pointer, ..]: &Arguments,
) -> Outcome {
    match command {
        CONSOLEIO_WRITE => write(vcpu, count, pointer),
        CONSOLEIO_READ => read(vcpu, count, pointer),
        _ => Err(Errno::NoSys),
    }
}

fn write<H: Vcpu>(vcpu: &Running<H>, count: u64, pointer: u64) -> Outcome {
    /// Linux writes a line or two at a time; more would keep the CPU for long.
    const MOST: u64 = 4096;
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    let count = count.min(MOST);
    while done < count {
        let part = (count - done).min(CHUNK as u64) as usize;
        read_bytes(vcpu, pointer.wrapping_add(done), &mut buffer[..part])?;
        console::write_guest(&buffer[..part]);
        done += part as u64;
    }
    Ok(0)
}

fn read<H: Vcpu>(vcpu: &Running<H>, count: u64, pointer: u64) -> Outcome {
    let mut buffer = [0; CHUNK];
    let wanted = count.min(CHUNK as u64) as usize;
    let got = console_input::take(&mut buffer[..wanted]);
    write_bytes(vcpu, pointer, &buffer[..got])?;
    Ok(got as u64)
}
