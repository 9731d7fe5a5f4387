//! A load for network cards, of a given size rather than for a given time, so that its cost can be divided by it.
//!
//! `serve PORT` answers for ever; `send ADDRESS BYTES` and `fetch ADDRESS BYTES` have a stream each way, `ask ADDRESS ROUNDS` sends
//! a byte and waits for one, so often.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

/// Of a read or a write, as iperf3 has it.
const PIECE: usize = 128 << 10;

const SEND: u8 = b's';
const FETCH: u8 = b'f';
const ASK: u8 = b'a';

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["serve", port] => serve(port),
        ["send", address, count] => client(SEND, address, count),
        ["fetch", address, count] => client(FETCH, address, count),
        ["ask", address, count] => client(ASK, address, count),
        _ => Err("use: serve PORT, or one of send, fetch, ask with ADDRESS:PORT COUNT".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netload: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One client at a time; what goes wrong with it is told, and the next one served.
fn serve(port: &str) -> Outcome {
    let listener = TcpListener::bind(("0.0.0.0", port.parse()?))?;
    loop {
        let (stream, _) = listener.accept()?;
        if let Err(error) = answer(stream) {
            eprintln!("netload: {error}");
        }
    }
}

fn answer(mut stream: TcpStream) -> Outcome {
    stream.set_nodelay(true)?;
    let (mut kind, mut count) = ([0], [0; 8]);
    stream.read_exact(&mut kind)?;
    stream.read_exact(&mut count)?;
    let count = u64::from_le_bytes(count);
    match kind[0] {
        SEND => {
            receive_all(&mut stream, count)?;
            stream.write_all(&kind)?;
        }
        FETCH => send_all(&mut stream, count)?,
        ASK => {
            for _ in 0..count {
                stream.read_exact(&mut kind)?;
                stream.write_all(&kind)?;
            }
        }
        other => return Err(format!("a client wants {other:#x}").into()),
    }
    Ok(())
}

fn client(kind: u8, address: &str, count: &str) -> Outcome {
    let count: u64 = count.parse()?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    stream.write_all(&count.to_le_bytes())?;
    let mut byte = [0];
    match kind {
        SEND => {
            send_all(&mut stream, count)?;
            stream.read_exact(&mut byte)?;
        }
        FETCH => receive_all(&mut stream, count)?,
        _ => {
            for _ in 0..count {
                stream.write_all(&byte)?;
                stream.read_exact(&mut byte)?;
            }
        }
    }
    Ok(())
}

fn send_all(stream: &mut TcpStream, count: u64) -> Outcome {
    let piece = vec![0; PIECE];
    let mut left = count;
    while left > 0 {
        let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        stream.write_all(&piece[..size])?;
        left -= size as u64;
    }
    Ok(())
}

fn receive_all(stream: &mut TcpStream, count: u64) -> Outcome {
    let mut piece = vec![0; PIECE];
    let mut left = count;
    while left > 0 {
        let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        match stream.read(&mut piece[..most])? {
            0 => return Err("the stream ends early".into()),
            size => left -= size as u64,
        }
    }
    Ok(())
}
