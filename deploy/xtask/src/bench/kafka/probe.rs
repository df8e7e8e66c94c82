//! Asks a broker by Kafka's protocol which brokers there are, with nothing in between that has a patience of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);
/// Metadata, version 1, of no topic.
const REQUEST: &[u8] = &[
    0, 0, 0, 15, // bytes that follow
    0, 3, 0, 1, // which request, in which version
    0, 0, 0, 7, // its number
    0, 1, b'x', // who asks
    0, 0, 0, 0, // topics
];
/// What stands in front of the brokers: the size, the number of the request, how many there are.
const ANSWER: usize = 12;

/// How many brokers it knows; nothing if it does not answer.
pub(super) fn brokers(address: SocketAddr) -> Option<usize> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.write_all(REQUEST).ok()?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer).ok()?;
    let [.., a, b, c, d] = answer;
    usize::try_from(i32::from_be_bytes([a, b, c, d])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_many_there_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).expect("a request");
            let size = i32::from_be_bytes([request[0], request[1], request[2], request[3]]);
            assert_eq!(size as usize, REQUEST.len() - 4);
            stream
                .write_all(&[0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 3])
                .expect("it reads");
        });
        assert_eq!(brokers(address), Some(3));
        broker.join().expect("it has answered");
        assert_eq!(brokers(address), None, "nobody is there any more");
    }
}
