//! A small blocking HTTP/1.1 client that shows an answer as it came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names as they came, and values.
    pub headers: Vec<(String, String)>,
    /// The body, without its transfer encoding.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// `GET http://ADDRESS/PATH`; `address` is `host:port`, `path` begins with `/`. An error is one of the connection.
pub fn get(address: &str, path: &str) -> std::io::Result<Answer> {
    request("GET", address, path, &[], None)
}

/// `POST` of a JSON body.
pub fn post(address: &str, path: &str, json: &str) -> std::io::Result<Answer> {
    request("POST", address, path, &[("Content-Type", "application/json")], Some(json.as_bytes()))
}

/// One request on a connection of its own, with these headers besides `Host`, `Connection` and `Content-Length`.
pub fn request(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> std::io::Result<Answer> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes())?;
    socket.write_all(body.unwrap_or_default())?;
    read_answer(&mut BufReader::new(socket), method == "HEAD")
}

/// Waits, at most [`PATIENCE`], until `GET` answers with this status.
pub fn wait_for_status(address: &str, path: &str, status: u16) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(address, path);
        match answer {
            Ok(answer) if answer.status == status => return answer,
            other => {
                assert!(Instant::now() < deadline, "{address}{path} did not answer {status}; the last try: {other:?}")
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads one answer: interim ones (1xx) are skipped; the body ends by its length, its last chunk or the connection's end.
pub fn read_answer(from: &mut impl BufRead, head_only: bool) -> std::io::Result<Answer> {
    loop {
        let first = read_line(from)?;
        let status =
            first.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).ok_or_else(|| invalid(&first))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if !head_only && !matches!(status, 101 | 204 | 304) {
            answer.body = read_body(from, &answer)?;
        }
        return Ok(answer);
    }
}

fn read_body(from: &mut impl BufRead, answer: &Answer) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = read_line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid(&line))?;
            exactly(from, size, &mut body)?;
            if size == 0 {
                while !read_line(from)?.is_empty() {} // trailers
                return Ok(body);
            }
            read_line(from)?;
        }
    } else if let Some(length) = answer.header("content-length") {
        exactly(from, length.parse().map_err(|_| invalid(length))?, &mut body)?;
    } else {
        from.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn exactly(from: &mut impl BufRead, size: u64, body: &mut Vec<u8>) -> std::io::Result<()> {
    match from.by_ref().take(size).read_to_end(body)? as u64 == size {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

fn read_line(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(line)
        .map(|line| line.trim_end_matches('\r').to_owned())
        .map_err(|error| invalid(&error.to_string()))
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not HTTP/1.1: `{what}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::io::Result<Answer> {
        read_answer(&mut BufReader::new(text.as_bytes()), false)
    }

    #[test]
    fn every_framing_of_a_body_is_read() {
        let body = |text: &str| parse(text).unwrap().text();
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"), "abc");
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: r\r\n\r\n"),
            "abc"
        );
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nabc"), "abc");
        assert_eq!(body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), "");
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "junk\r\n\r\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
