//! Requests whose end, or whose meaning, readers of HTTP have disagreed about, and what payrelay makes of each.
//!
//! The situations are those which llhttp's tests, http-desync-guardian and the HTTP Garden look for; bytes, names and
//! verdicts are our own. Each request carries [`GOOD`] and is followed by another request, which must be answered where
//! the first one's end is beyond doubt, and never be seen else.

/// The payment that every request carries, for the client `01`.
pub(crate) const GOOD: &str = r#"{"client":"01","msg":1}"#;

/// A request and what becomes of it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: u16,
    /// Of the problem; empty where there is none.
    pub(crate) code: &'static str,
    pub(crate) stored: bool,
    /// The connection goes on, with the request that follows.
    pub(crate) goes_on: bool,
    /// The sender has to end its side first: until then more may come.
    pub(crate) waits: bool,
}

const TAKEN: Verdict = Verdict { status: 202, code: "", stored: true, goes_on: true, waits: false };
const TAKEN_AS_LAST: Verdict = Verdict { goes_on: false, ..TAKEN };
const DOUBTFUL: Verdict = refused(400, "bad_request");
const UNFINISHED: Verdict = Verdict { waits: true, ..DOUBTFUL };

/// Refused, and the connection closed.
const fn refused(status: u16, code: &'static str) -> Verdict {
    Verdict { status, code, stored: false, goes_on: false, waits: false }
}

/// Answered without storing anything; its end is beyond doubt.
const fn answered(status: u16, code: &'static str) -> Verdict {
    Verdict { goes_on: true, ..refused(status, code) }
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    cases.lengths();
    cases.names_like_those_of_lengths();
    cases.codings();
    cases.lengths_and_codings_together();
    cases.chunk_sizes();
    cases.chunk_ends_and_trailers();
    cases.control_characters();
    cases.characters_of_names_and_methods();
    cases.line_ends();
    cases.folds_and_lines_that_are_no_fields();
    cases.request_lines();
    cases.targets();
    cases.hosts();
    cases.connections_and_expectations();
    cases.methods();
    cases.sizes();
    cases.other_protocols();
    cases.before_and_behind();
    cases.kinds();
    cases.0
}

#[derive(Default)]
struct Cases(Vec<Case>);

/// What stands for a Content-Length that is right.
const RIGHT: &str = "Content-Length: 23\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn in_one_chunk() -> String {
    format!("17\r\n{GOOD}\r\n0\r\n\r\n")
}

impl Cases {
    fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, verdict: Verdict) {
        self.0.push(Case { name: name.into(), bytes: bytes.into(), verdict });
    }

    /// A post with these fields behind the Host, each with its end, and this body.
    fn post(&mut self, name: &str, fields: impl AsRef<[u8]>, body: impl AsRef<[u8]>, verdict: Verdict) {
        let line = b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let fields = fields.as_ref();
        let shown = format!("{name}: {}", fields[..fields.len().min(120)].escape_ascii());
        self.add(shown, [line, fields, b"\r\n", body.as_ref()].concat(), verdict);
    }

    /// A post whose body is chunked like this.
    fn chunks(&mut self, name: &str, body: impl AsRef<[u8]>, verdict: Verdict) {
        let line = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{CHUNKED}\r\n");
        let body = body.as_ref();
        let shown = format!("{name}: {}", body[..body.len().min(120)].escape_ascii());
        self.add(shown, [line.as_bytes(), body].concat(), verdict);
    }

    fn lengths(&mut self) {
        for value in ["23", " 23", "\t23", "23 ", "23\t", "  \t 23 \t ", "023", "00000000000000000000000000000000023"] {
            self.post("a length that is right", format!("Content-Length:{value}\r\n"), GOOD, TAKEN);
        }
        for name in ["content-length", "CONTENT-LENGTH", "cOnTeNt-LeNgTh"] {
            self.post("letters of any case", format!("{name}: 23\r\n"), GOOD, TAKEN);
        }
        let none = [
            "", " ", "+23", "-23", "-0", "+0", "--23", "23-", "23+", "23,23", "23, 23", "23,", ",23", "23 23", "23\t0",
            "23;", "23; a=b", "23.0", "23.", ".23", "2_3", "0x17", "0X17", "x17", "17h", "0b10111", "0o27", "2e1",
            "23e0", "1E2", "23a", "a23", "a", "\"23\"", "'23'", "(23)", "[23]", "{23}", "23%", "%32%33", "NaN", "inf",
            "23\u{a0}", "\u{a0}23", "\u{ff12}\u{ff13}", "\u{662}\u{663}", "23\u{200b}", "23 bytes", "bytes 23",
            "23/23", "chunked", "identity", "null", "true",
        ];
        for value in none {
            self.post("a length that is none", format!("Content-Length: {value}\r\n"), GOOD, DOUBTFUL);
        }
        self.post("a length that is no text", b"Content-Length: \xff23\r\n", GOOD, DOUBTFUL);
        let too_large = refused(413, "body_too_large");
        for value in [
            "262145", "4294967295", "4294967296", "4294967319", "9223372036854775807", "9223372036854775808",
            "18446744073709551615", "18446744073709551616", "18446744073709551639",
            "340282366920938463463374607431768211479", "99999999999999999999999999999999999999999999999999999999",
        ] {
            // Some of them are 23 in 32, 64 or 128 bits.
            self.post("a length that is too large", format!("Content-Length: {value}\r\n"), GOOD, too_large);
        }
        self.post("no length at all", "", GOOD, refused(411, "length_required"));
        self.post("a length of nothing", "Content-Length: 0\r\n", "", answered(400, "bad_json"));
        for both in [
            ("23", "23"),
            ("23", "22"),
            ("22", "23"),
            ("0", "23"),
            ("23", "0"),
            ("23", ""),
            ("", "23"),
            ("23", "a"),
            ("a", "23"),
            ("0023", "23"),
            ("23", "+23"),
        ] {
            let fields = format!("Content-Length: {}\r\ncontent-length: {}\r\n", both.0, both.1);
            self.post("two lengths", fields, GOOD, DOUBTFUL);
        }
        let apart = "Content-Length: 23\r\nX: y\r\nContent-Length: 23\r\n";
        self.post("two lengths with another field between", apart, GOOD, DOUBTFUL);
        self.post("three lengths", RIGHT.repeat(3), GOOD, DOUBTFUL);
    }

    /// Names that some readers take for the ones that say where a request ends.
    fn names_like_those_of_lengths(&mut self) {
        let dirty = |name: &str| {
            let middle = name.replace('-', " -");
            [
                format!("{name} :"),
                format!("{name}\t:"),
                format!("{name}  :"),
                format!(" {name}:"),
                format!("\t{name}:"),
                format!("{name}\0:"),
                format!("\0{name}:"),
                format!("\x01{name}:"),
                format!("{name}\x7f:"),
                format!("{name}\x0b:"),
                format!("{name}\x0c:"),
                format!("{name}\r:"),
                format!("\r{name}:"),
                format!("{name}\u{a0}:"),
                format!("\u{a0}{name}:"),
                format!("\u{feff}{name}:"),
                format!("{middle}:"),
                name.to_owned(),
                format!(":{name}:"),
                format!("\"{name}\":"),
                format!("({name}):"),
                format!("{name};:"),
                format!("{name}=:"),
                format!("{name},:"),
                format!("{name}/:"),
                format!("{name}@:"),
                format!("{name}\\:"),
                format!("{name} x:"),
                format!("{}:", name.replace('-', "\u{2010}")),
                format!("{}:", name.replace('n', "\u{146}")),
                format!("{}:", name.replace('o', "\u{3bf}")),
                format!("{}:", name.replace('-', "\r\n-")),
            ]
        };
        for name in dirty("Content-Length") {
            self.post("like a length", format!("{name} 23\r\n"), GOOD, DOUBTFUL);
            self.post("like a length, behind one", format!("{RIGHT}{name} 0\r\n"), GOOD, DOUBTFUL);
            self.post("like a length, beside chunks", format!("{name} 5\r\n{CHUNKED}"), in_one_chunk(), DOUBTFUL);
        }
        for name in dirty("Transfer-Encoding") {
            self.post("like a coding", format!("{name} chunked\r\n"), in_one_chunk(), DOUBTFUL);
            self.post("like a coding, before a length", format!("{name} chunked\r\n{RIGHT}"), GOOD, DOUBTFUL);
            self.post("like a coding, behind one", format!("{CHUNKED}{name} identity\r\n"), in_one_chunk(), DOUBTFUL);
        }
        // Names that are proper, and other ones: they say nothing about the end.
        for name in [
            "Content_Length", "Content--Length", "Content.Length", "ContentLength", "X-Content-Length",
            "Content-Length-", "Content-Lengths", "Content-Lengt", "-Content-Length", "Content-Length2",
            "|Content-Length", "Content-Length~",
        ] {
            self.post("another name", format!("{name}: 23\r\n"), GOOD, refused(411, "length_required"));
            self.post("another name beside a length", format!("{name}: 5\r\n{RIGHT}"), GOOD, TAKEN);
        }
        for name in [
            "Transfer_Encoding", "Transfer---Encoding", "Transfer.Encoding", "TransferEncoding", "X-Transfer-Encoding",
            "TE", "Transfer-Encodin", "Transfer-Encodings", "Transfer-Coding", "Content-Transfer-Encoding", "Trailer",
        ] {
            self.post("another name", format!("{name}: chunked\r\n"), in_one_chunk(), refused(411, "length_required"));
            self.post("another name beside a length", format!("{name}: chunked\r\n{RIGHT}"), GOOD, TAKEN);
        }
    }

    fn codings(&mut self) {
        for value in ["chunked", "Chunked", "CHUNKED", "  chunked  ", "\tchunked\t", "cHuNkEd"] {
            self.post("the coding that is taken", format!("Transfer-Encoding:{value}\r\n"), in_one_chunk(), TAKEN);
        }
        for value in CODINGS {
            self.post(
                "a coding that is not taken",
                format!("Transfer-Encoding: {value}\r\n"),
                in_one_chunk(),
                DOUBTFUL,
            );
        }
        for both in [
            ("chunked", "chunked"),
            ("chunked", "identity"),
            ("identity", "chunked"),
            ("gzip", "chunked"),
            ("chunked", "gzip"),
            ("", "chunked"),
            ("chunked", ""),
            ("chunked", "x"),
        ] {
            let fields = format!("Transfer-Encoding: {}\r\nTransfer-encoding: {}\r\n", both.0, both.1);
            self.post("two codings", fields, in_one_chunk(), DOUBTFUL);
        }
        let line = "POST /v1/payments HTTP/1.0\r\nContent-Type: application/json\r\n";
        self.add("chunks in HTTP/1.0", format!("{line}{CHUNKED}\r\n{}", in_one_chunk()), DOUBTFUL);
        let kept = format!("{line}Connection: keep-alive\r\n{CHUNKED}\r\n{}", in_one_chunk());
        self.add("chunks in HTTP/1.0 that is kept alive", kept, DOUBTFUL);
    }

    fn lengths_and_codings_together(&mut self) {
        for value in ["chunked", "Chunked"].iter().chain(CODINGS) {
            for length in ["23", "0", "44"] {
                let (length, coding) =
                    (format!("Content-Length: {length}\r\n"), format!("Transfer-Encoding: {value}\r\n"));
                self.post("a length before a coding", format!("{length}{coding}"), GOOD, DOUBTFUL);
                self.post("a length behind a coding", format!("{coding}X: y\r\n{length}"), in_one_chunk(), DOUBTFUL);
            }
        }
    }

    fn chunk_sizes(&mut self) {
        let chunk = |size: &str| format!("{size}\r\n{GOOD}\r\n0\r\n\r\n");
        for size in ["17", "017", "0017", "00000017"] {
            self.chunks("a size that is right", chunk(size), TAKEN);
        }
        let upper = format!("F\r\n{}\r\n8\r\n{}\r\n000\r\n\r\n", &GOOD[..15], &GOOD[15..]);
        self.chunks("two chunks, and letters", upper.to_lowercase().replace("\"CLIENT", "\"client"), TAKEN);
        self.chunks("two chunks, and capitals", upper, TAKEN);
        let single: String = GOOD.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
        self.chunks("a chunk for each byte", format!("{single}0\r\n\r\n"), TAKEN);
        for size in [
            "", " ", " 17", "\t17", "17 ", "17\t", "0x17", "0X17", "x17", "#17", "+17", "-17", "--17", "1 7", "17,17",
            "17.0", "17g", "g17", "\"17\"", "17h", "$17", "1_7", "000000017", "0000000000000017", "17 ;a", "17\t;a",
            " ;a", ";a", ";", "\u{661}\u{667}", "17\u{a0}", "17=", "17:", "17/", "17\\", "-0", "17\0", "\x0017",
            "17\x0b", "17\x0c", "17\x7f", "17\x1b", "17\r", "\r17", "chunked", "zz", "NaN", "100000017",
        ] {
            self.chunks("a size that is none", chunk(size), DOUBTFUL);
        }
        for size in ["ffffffff", "FFFFFFFF", "7fffffff", "80000000", "40001", "fffffff0"] {
            self.chunks("a size that is too large", chunk(size), refused(413, "body_too_large"));
        }
        for size in ["7fffffffffffffff", "ffffffffffffffff", "10000000000000017", "ffffffffffffffffffffffffffffffff"] {
            self.chunks("a size of too many digits", chunk(size), DOUBTFUL);
        }
        let extensions =
            [";", "; a", ";a", ";a=b", ";a=\"b\"", "; a = b", ";a;b;c", ";=", ";;", ";a=\"\\\"\"", ";a=\"b", ";\t"];
        for extension in extensions {
            // They mean nothing, so nobody can read them otherwise.
            self.chunks("an extension", chunk(&format!("17{extension}")), TAKEN);
            self.chunks("an extension of the last", format!("17\r\n{GOOD}\r\n0{extension}\r\n\r\n"), TAKEN);
        }
        for extension in [";a\nb", ";a\rb", ";a\0b", ";a\x0bb", ";a\x7fb", ";a=\"\r\n\"", ";a=\"\n\""] {
            self.chunks("an extension with a control character", chunk(&format!("17{extension}")), DOUBTFUL);
        }
        self.chunks("an extension of 256 bytes", chunk(&format!("17;{}", "e".repeat(255))), TAKEN);
        self.chunks("an extension of 257 bytes", chunk(&format!("17;{}", "e".repeat(256))), DOUBTFUL);
        self.chunks("an extension without end", format!("17;{}", "e".repeat(100_000)), DOUBTFUL);
    }

    fn chunk_ends_and_trailers(&mut self) {
        for behind in ["", "\n", "\r", "\r\r\n", "\n\r", " \r\n", "\0\r\n", "\r\n\r\n", "x\r\n", "}\r\n", "\r\n "] {
            let verdict = DOUBTFUL;
            self.chunks("behind a chunk", format!("17\r\n{GOOD}{behind}0\r\n\r\n"), verdict);
        }
        for size in ["16", "18", "1", "19"] {
            self.chunks("a size beside the mark", format!("{size}\r\n{GOOD}\r\n0\r\n\r\n"), DOUBTFUL);
        }
        for end in ["17\n", "17\r", "17\n\r", "17\r\r\n"] {
            self.chunks("the end of a size", format!("{end}{GOOD}\r\n0\r\n\r\n"), DOUBTFUL);
        }
        for last in
            ["0\n\r\n", "0\r\n\n", "0\r\r\n", "0\n\n", "0\r\n\r\r\n", "0\r\n \r\n\r\n", "0 \r\n\r\n", "-0\r\n\r\n"]
        {
            self.chunks("the last chunk", format!("17\r\n{GOOD}\r\n{last}"), DOUBTFUL);
        }
        for trailer in [
            "A: b", "A:", "A:b", "A: b\r\nC: d", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil",
            "A:\tb\t", "Content-Type: text/plain", "Idempotency-Key: other", "Authorization: Bearer x",
            "Expect: 200-ok", "Connection: close", "A: \u{e9}",
        ] {
            // They are checked and ignored: no trailer changes what the head said.
            self.chunks("a trailer", format!("17\r\n{GOOD}\r\n0\r\n{trailer}\r\n\r\n"), TAKEN);
        }
        for trailer in [
            "A", "A b", ": b", " A: b", "\tA: b", "A : b", "A\t: b", "A: b\r\n c", "A: b\r\n\tc", "A: b\nC: d",
            "A: b\rC: d", "A: \0", "A\0: b", "A: \x7f", "(A): b", "A@: b", "\"A\": b", "A: b\n", "A: b\r",
            "POST /v1/payments HTTP/1.1", "0", "\u{e9}: b",
        ] {
            self.chunks("a trailer that is none", format!("17\r\n{GOOD}\r\n0\r\n{trailer}\r\n\r\n"), DOUBTFUL);
        }
        self.chunks("4 KiB of trailers", format!("17\r\n{GOOD}\r\n0\r\n{}\r\n", "A: 56\r\n".repeat(585)), TAKEN);
        self.chunks("more trailers", format!("17\r\n{GOOD}\r\n0\r\n{}\r\n", "A: 56\r\n".repeat(587)), DOUBTFUL);
        for cut in ["", "1", "17", "17\r", "17\r\n", "17\r\n{", "17\r\n{\"client\":\"01\",\"msg\":1}"] {
            self.cut_chunks(cut);
        }
        for cut in ["\r", "\r\n", "\r\n0", "\r\n0\r\n", "\r\n0\r\nA: b\r\n", "\r\n0\r\n\r"] {
            self.cut_chunks(&format!("17\r\n{GOOD}{cut}"));
        }
        self.post("a body that is cut", "Content-Length: 24\r\n", GOOD, UNFINISHED);
        self.post("a body that does not come", RIGHT, "", UNFINISHED);
    }

    fn cut_chunks(&mut self, body: &str) {
        self.chunks("chunks that are cut", body, UNFINISHED);
    }

    fn control_characters(&mut self) {
        for byte in (0..b' ').chain([0x7f]) {
            if matches!(byte, b'\t' | b'\r' | b'\n') {
                continue;
            }
            let name = |place: &str| format!("the control character {byte:#04x} in {place}");
            let places: [(&str, &[u8], &[u8]); 10] = [
                ("the method", b"PO", b"ST /v1/payments HTTP/1.1\r\nHost: x\r\n"),
                ("the target", b"POST /v1/", b"payments HTTP/1.1\r\nHost: x\r\n"),
                ("the version", b"POST /v1/payments HTTP/1.", b"1\r\nHost: x\r\n"),
                ("a name", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nA", b"B: c\r\n"),
                ("a value", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nA: b", b"c\r\n"),
                ("place of a blank", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nA:", b"c\r\n"),
                ("the Host", b"POST /v1/payments HTTP/1.1\r\nHost: x", b"y\r\n"),
                ("the coding", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", b"\r\n"),
                ("the place of a line end", b"POST /v1/payments HTTP/1.1\r\nHost: x", b"A: b\r\n"),
                ("front of all", b"", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\n"),
            ];
            for (place, before, behind) in places {
                let head = [before, &[byte], behind, RIGHT.as_bytes(), b"\r\n", GOOD.as_bytes()].concat();
                self.add(name(place), head, DOUBTFUL);
            }
        }
    }

    fn characters_of_names_and_methods(&mut self) {
        for character in "\"(),/:;<=>?@[\\]{} \u{e9}".chars() {
            // A colon ends the name, and what is behind it is a value.
            let verdict = if character == ':' { TAKEN } else { DOUBTFUL };
            self.post("a name", format!("A{character}B: c\r\n{RIGHT}"), GOOD, verdict);
            let line = format!("PO{character}ST /v1/payments HTTP/1.1\r\nHost: x\r\n{RIGHT}\r\n{GOOD}");
            self.add(format!("a method with {character:?}"), line, DOUBTFUL);
        }
        for character in "!#$%&'*+-.^_`|~019azAZ".chars() {
            self.post("a name", format!("{character}: c\r\n{RIGHT}"), GOOD, TAKEN);
        }
        for value in ["", " ", "\t", "a  b", "a\tb", "\"", "\u{e9}", ": :", "a, b", "\\", "\u{2028}", "{}"] {
            self.post("a value", format!("A:{value}\r\n{RIGHT}"), GOOD, TAKEN);
        }
        self.post("a value that is no text", [b"A: \xff\xfe\x80\r\n", RIGHT.as_bytes()].concat(), GOOD, TAKEN);
    }

    /// Each line end of a request, otherwise written.
    fn line_ends(&mut self) {
        let counted = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\nA: b\r\n{RIGHT}\r\n");
        for other in
            ["\n", "\r", "\n\r", "\r\r\n", "\r\n\n", "\n\n", "\0\r\n", "\r\0\n", " \n", "\r \n", "\u{85}", "\u{2028}"]
        {
            for (place, (at, _)) in counted.match_indices("\r\n").enumerate() {
                let mut bytes = counted.clone();
                bytes.replace_range(at..at + 2, other);
                let verdict = match (other, place) {
                    // The head ends there, and the line feed is the first byte of the body.
                    ("\r\n\n", 4) => continue,
                    // These end no line, so two lines are one: the length is gone, or the end of the head.
                    ("\u{85}" | "\u{2028}", 2) => refused(411, "length_required"),
                    ("\u{85}" | "\u{2028}", 3..) => UNFINISHED,
                    _ => DOUBTFUL,
                };
                self.add(format!("line end {place} written as {other:?}"), bytes + GOOD, verdict);
            }
        }
        self.add("only line feeds", counted.replace("\r\n", "\n") + GOOD, DOUBTFUL);
        self.add("only carriage returns", counted.replace("\r\n", "\r") + GOOD, DOUBTFUL);
    }

    fn folds_and_lines_that_are_no_fields(&mut self) {
        for line in [
            "A: b\r\n c", "A: b\r\n\tc", "A: b\r\n ", "A:\r\n b", "A: b\r\n Content-Length: 5",
            "A: b\r\n\tTransfer-Encoding: chunked", " A: b", "\tA: b", "A", "A b", ":", ": b", "::", " ", "\t",
            "GET /healthz HTTP/1.1", "\u{feff}A: b", "A\r\n: b", "A\r\n : b", "{\"client\":\"01\"}", "A b: c", "-",
            "HTTP/1.1 200 OK",
        ] {
            self.post("a line that is no field", format!("{line}\r\n{RIGHT}"), GOOD, DOUBTFUL);
            self.post("a line that is no field, last", format!("{RIGHT}{line}\r\n"), GOOD, DOUBTFUL);
        }
        let first = format!("POST /v1/payments HTTP/1.1\r\n Host: x\r\n{RIGHT}\r\n{GOOD}");
        self.add("a blank before the first field", first, DOUBTFUL);
        self.post("a length that is folded", "Content-Length:\r\n 23\r\n", GOOD, DOUBTFUL);
        self.post("a coding that is folded", "Transfer-Encoding:\r\n chunked\r\n", in_one_chunk(), DOUBTFUL);
        self.post(
            "a coding whose list is folded",
            "Transfer-Encoding: chunked,\r\n identity\r\n",
            in_one_chunk(),
            DOUBTFUL,
        );
    }

    fn request_lines(&mut self) {
        let rest = format!("Host: x\r\n{RIGHT}\r\n{GOOD}");
        for line in [
            "", "POST", "POST ", "POST /v1/payments", "POST /v1/payments ", "POST  /v1/payments HTTP/1.1",
            "POST /v1/payments  HTTP/1.1", " POST /v1/payments HTTP/1.1", "\tPOST /v1/payments HTTP/1.1",
            "POST /v1/payments HTTP/1.1 ", "POST /v1/payments HTTP/1.1\t", "POST /v1/payments HTTP/1.1 x",
            "POST /v1/payments x HTTP/1.1", "POST\t/v1/payments HTTP/1.1", "POST /v1/payments\tHTTP/1.1",
            "/v1/payments HTTP/1.1", "HTTP/1.1 /v1/payments POST", "HTTP/1.1 200 OK", "POST HTTP/1.1",
            "POST /v1/payments, HTTP/1.1 HTTP/1.1", "POST\u{a0}/v1/payments HTTP/1.1",
            "\u{feff}POST /v1/payments HTTP/1.1", "POST: /v1/payments HTTP/1.1", "POST /v1/payments HTTP/1.1;",
            "POST /v1/payments \"HTTP/1.1\"", "POST /v1/payments\0 HTTP/1.1",
        ] {
            // Of an empty line at the front nobody knows whether it is one too many; the next is no request line.
            self.add(format!("the request line {line:?}"), format!("{line}\r\n{rest}"), DOUBTFUL);
        }
        for version in [
            "HTTP", "HTTP/", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/11", "HTTP/1.10", "HTTP/01.1", "HTTP/1.01",
            "HTTP/1,1", "HTTP/1.1.1", "http/1.1", "Http/1.1", "HTTPS/1.1", "HTP/1.1", "HTTP/a.b", "HTTP/-1.1",
            "HTTP/1.-1", "HTTP /1.1", "HTTP/ 1.1", "HTTP/1.1a", "HTTP\\1.1", "ICY/1.1", "RTSP/1.0", "SIP/2.0",
            "HTTP/\u{661}.\u{661}", "1.1", "HTTP/1\u{b7}1", "HTTP/10.1", "HTTP/1.1,",
        ] {
            self.add(format!("the version {version:?}"), format!("POST /v1/payments {version}\r\n{rest}"), DOUBTFUL);
        }
        for version in ["HTTP/0.9", "HTTP/0.0", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2.1", "HTTP/3.0", "HTTP/9.9"]
        {
            let verdict = refused(505, "version_not_supported");
            self.add(format!("the version {version:?}"), format!("POST /v1/payments {version}\r\n{rest}"), verdict);
        }
    }

    fn targets(&mut self) {
        let post = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: x\r\n{RIGHT}\r\n{GOOD}");
        for target in [
            "/v1/payments", "/v1/payments?", "/v1/payments?a=b&a=c", "/v1/payments?x=%zz", "/v1/p%61yments",
            "/%761/payments", "http://x/v1/payments", "HTTP://x:80/v1/payments", "http://other/v1/payments?",
            "http://[::1]/v1/payments", "/v1/payments?http://x/",
        ] {
            self.add(format!("the target {target}"), post(target), TAKEN);
        }
        for target in [
            "v1/payments", "*", "?", "x:80", "https://x/v1/payments", "ftp://x/", "http:/v1/payments",
            "http:///v1/payments", "http://", "http://u@x/v1/payments", "http://u:p@x/", "http://x y/",
            "/v1/payments#a", "#", "/v1/payments\u{e9}", "http://x,y/v1/payments", "\\v1\\payments", "http://\u{e9}/",
            "http:\\\\x\\", "//x/v1/payments#",
        ] {
            self.add(format!("the target {target:?}"), post(target), DOUBTFUL);
        }
        // Other paths: nothing is stored, and as the body is not read, it ends the connection.
        for target in [
            "/", "//v1/payments", "/v1//payments", "/v1/payments/", "/v1/./payments", "/v1/../v1/payments",
            "/V1/payments", "/v1/payments%00", "/v1/payments%0d%0aX:y", "/v1%2fpayments", "/v1/payments;a=b",
            "/v1\\payments", "/%ff", "/v1/payments%20", "/v1/%2e%2e/v1/payments", "/proxy/http://x/",
            "/v1/payments%3Fa", "http://x", "/v1/payments,",
        ] {
            self.add(format!("the target {target:?}"), post(target), refused(404, "not_found"));
        }
    }

    fn hosts(&mut self) {
        let post = |fields: &str| format!("POST /v1/payments HTTP/1.1\r\n{fields}{RIGHT}\r\n{GOOD}");
        for host in [
            "x", "", "x:80", "X.example", "[::1]", "[::1]:8080", "127.0.0.1:1", "a_b", "x.", "%41", "x:", "-", "..",
            "localhost",
        ] {
            self.add(format!("the Host {host:?}"), post(&format!("Host: {host}\r\n")), TAKEN);
        }
        for host in [
            "x y", "x, y", "x,y", "u@x", "x/y", "x/", "http://x", "x#y", "x?y", "x\\y", "x\"y", "<x>", "x^y", "x|y",
            "{x}", "\u{e9}", "x\ty", "x`y",
        ] {
            self.add(format!("the Host {host:?}"), post(&format!("Host: {host}\r\n")), DOUBTFUL);
        }
        for fields in [
            "", "Host: x\r\nHost: x\r\n", "Host: x\r\nhost: y\r\n", "Host: x\r\nHost:\r\n", "Host : x\r\n",
            "Hos: x\r\n", "Host\r\n", " Host: x\r\n", "X-Forwarded-Host: x\r\n", "Host: x\r\nA: b\r\nHOST: x\r\n",
            "Host: x\r\n y\r\n",
        ] {
            self.add(format!("the Hosts {fields:?}"), post(fields), DOUBTFUL);
        }
        let old = format!("POST /v1/payments HTTP/1.0\r\nHost: x\r\nHost: y\r\n{RIGHT}\r\n{GOOD}");
        self.add("two Hosts in HTTP/1.0", old, DOUBTFUL);
        let old = format!("POST /v1/payments HTTP/1.0\r\n{RIGHT}\r\n{GOOD}");
        self.add("no Host in HTTP/1.0", old, TAKEN_AS_LAST);
    }

    fn connections_and_expectations(&mut self) {
        for value in [
            "keep-alive", "Keep-Alive, x", "x-close", "closed", "", ",", "upgrade", "Upgrade, HTTP2-Settings", "clo se",
        ] {
            self.post("it goes on", format!("Connection: {value}\r\n{RIGHT}"), GOOD, TAKEN);
        }
        for value in ["close", "Close", "keep-alive, close", "close, keep-alive", ",close", "\tclose ,x"] {
            self.post("it is the last", format!("Connection: {value}\r\n{RIGHT}"), GOOD, TAKEN_AS_LAST);
        }
        self.post(
            "it is the last, said twice",
            format!("Connection: a\r\nConnection: close\r\n{RIGHT}"),
            GOOD,
            TAKEN_AS_LAST,
        );
        for field in [
            "Upgrade: h2c", "Upgrade: websocket", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", "Keep-Alive: timeout=5",
            "Trailer: A",
        ] {
            self.post("nothing is upgraded", format!("Connection: upgrade\r\n{field}\r\n{RIGHT}"), GOOD, TAKEN);
        }
        for value in ["100-continue", "100-Continue", " 100-CONTINUE\t"] {
            self.post("a body that is there", format!("Expect: {value}\r\n{RIGHT}"), GOOD, TAKEN);
        }
        self.post("said twice", format!("Expect: 100-continue\r\nExpect: 100-continue\r\n{RIGHT}"), GOOD, TAKEN);
        for value in [
            "", "100", "100-continue, x", "200-ok", "100-continue;a=b", "\"100-continue\"", "continue", "100_continue",
            "y 100-continue",
        ] {
            let verdict = refused(417, "expectation_failed");
            self.post("another expectation", format!("Expect: {value}\r\n{RIGHT}"), GOOD, verdict);
        }
        for (version, fields, verdict) in [
            ("1.0", "", TAKEN_AS_LAST),
            ("1.0", "Connection: close\r\n", TAKEN_AS_LAST),
            ("1.0", "Connection: keep-alive\r\n", TAKEN),
            ("1.0", "Connection: keep-alive, close\r\n", TAKEN_AS_LAST),
            ("1.0", "Expect: 100-continue\r\n", TAKEN_AS_LAST),
            ("1.0", "Connection: x-keep-alive\r\n", TAKEN_AS_LAST),
        ] {
            let bytes = format!("POST /v1/payments HTTP/{version}\r\n{fields}{RIGHT}\r\n{GOOD}");
            self.add(format!("HTTP/{version} with {fields:?}"), bytes, verdict);
        }
    }

    fn methods(&mut self) {
        let request = |method: &str, path: &str, rest: &str| format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{rest}");
        let not_allowed = refused(405, "method_not_allowed");
        for method in [
            "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "Post", "POSTS", "PO", "MKCOLA", "X", "!",
            "QUERY",
        ] {
            let with_body = request(method, "/v1/payments", &format!("{RIGHT}\r\n{GOOD}"));
            self.add(format!("{method} with a body"), with_body, not_allowed);
            let chunked = request(method, "/v1/payments", &format!("{CHUNKED}\r\n{}", in_one_chunk()));
            self.add(format!("{method} with chunks"), chunked, not_allowed);
            let without = request(method, "/v1/payments", "\r\n");
            self.add(format!("{method} without a body"), without, answered(405, "method_not_allowed"));
            let empty = request(method, "/v1/payments", "Content-Length: 0\r\n\r\n");
            self.add(format!("{method} with an empty body"), empty, answered(405, "method_not_allowed"));
        }
        // Where nobody expects a body, none is read, and none is taken for a request.
        let none_taken = refused(413, "body_too_large");
        self.add("GET with a body", request("GET", "/healthz", &format!("{RIGHT}\r\n{GOOD}")), none_taken);
        let chunked = format!("{CHUNKED}\r\n{}", in_one_chunk());
        self.add("GET with chunks", request("GET", "/healthz", &chunked), none_taken);
        self.add(
            "GET with no chunks",
            request("GET", "/healthz", &format!("{CHUNKED}\r\n0\r\n\r\n")),
            answered(200, ""),
        );
        self.add("GET with an empty body", request("GET", "/healthz", "Content-Length: 0\r\n\r\n"), answered(200, ""));
        self.add("GET", request("GET", "/healthz", "\r\n"), answered(200, ""));
        self.add("GET with both", request("GET", "/healthz", &format!("{RIGHT}{chunked}")), DOUBTFUL);
        for field in ["X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-HTTP-Method: POST"] {
            let bytes = request("GET", "/healthz", &format!("{field}\r\n\r\n"));
            self.add(format!("GET with {field}"), bytes, answered(200, ""));
        }
        for target in ["x:80", "/v1/payments", "*"] {
            let bytes = request("CONNECT", target, "\r\n");
            self.add(format!("CONNECT {target}"), bytes, not_allowed);
        }
        self.add("OPTIONS *", request("OPTIONS", "*", "\r\n"), answered(404, "not_found"));
    }

    fn sizes(&mut self) {
        let too_large = refused(431, "head_too_large");
        let fields = |count: usize| "A: b\r\n".repeat(count);
        self.post("64 fields", format!("{}{RIGHT}", fields(61)), GOOD, TAKEN);
        self.post("65 fields", format!("{}{RIGHT}", fields(62)), GOOD, too_large);
        self.post("1,000 fields", format!("{}{RIGHT}", fields(1_000)), GOOD, too_large);
        self.post("a head of 15 KiB", format!("A: {}\r\n{RIGHT}", "b".repeat(15_000)), GOOD, TAKEN);
        self.post("a head of 17 KiB", format!("A: {}\r\n{RIGHT}", "b".repeat(17_000)), GOOD, too_large);
        self.post("a long name", format!("{}: b\r\n{RIGHT}", "A".repeat(15_000)), GOOD, TAKEN);
        self.post("a longer name", format!("{}: b\r\n{RIGHT}", "A".repeat(17_000)), GOOD, too_large);
        for (name, line) in [
            ("a long method", format!("{} / HTTP/1.1", "A".repeat(20_000))),
            ("a long target", format!("POST /{} HTTP/1.1", "a".repeat(20_000))),
            ("a long version", format!("POST / HTTP/1.{}", "1".repeat(20_000))),
        ] {
            self.add(name, format!("{line}\r\nHost: x\r\n{RIGHT}\r\n{GOOD}"), too_large);
        }
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        let head = |length: usize| format!("Content-Length: {length}\r\n");
        self.post("the longest body", head(262_144), padded(262_144), TAKEN);
        self.post("a longer body", head(262_145), padded(262_145), refused(413, "body_too_large"));
        let chunks = |length: usize| format!("{length:x}\r\n{}\r\n0\r\n\r\n", padded(length));
        self.chunks("the longest body in a chunk", chunks(262_144), TAKEN);
        self.chunks("a longer body in a chunk", chunks(262_145), refused(413, "body_too_large"));
    }

    fn other_protocols(&mut self) {
        let texts: [&[u8]; 22] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
            b"SSH-2.0-OpenSSH_9.2\r\n", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x50", b"*1\r\n$4\r\nPING\r\n",
            b"PING\r\n", b"SET a b\r\n", b"get a\r\n", b"HELO x\r\nMAIL FROM:<a@b>\r\n", b"USER anonymous\r\n",
            b"{\"type\":\"hello\",\"client\":\"01\"}\n", b"\0\x0f{\"type\":\"ping\"}",
            b"\0\0\0\x0f{\"type\":\"ping\"}", b"GET /\r\n", b"GET / HTTP/1.1\n\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
            b"AMQP\x00\x00\x09\x01", b"\xff\xfe\x00\x00", b"\xef\xbb\xbfPOST /v1/payments HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\0\0\0\0\0\0\0\0",
        ];
        for text in texts {
            self.add(format!("another protocol: {}", text.escape_ascii()), text, DOUBTFUL);
        }
        let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        self.add("HTTP/2 by itself", http2, refused(505, "version_not_supported"));
        for text in [GOOD, "G", "GET /v1", "GET / HTTP/1.1\r\nHost: x\r\nA: b"] {
            self.add(format!("the beginning of something: {text:?}"), text, Verdict { waits: true, ..DOUBTFUL });
        }
    }

    fn before_and_behind(&mut self) {
        let post = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\n{RIGHT}\r\n{GOOD}");
        for before in ["\r\n", "\r\n\r\n"] {
            self.add(format!("{before:?} before a request"), format!("{before}{post}"), TAKEN);
        }
        for before in
            ["\r\n\r\n\r\n", "\n", "\r", "\n\n", " \r\n", "\r\n ", "\t", "\0", "\r\r\n", "\n\r", "\u{feff}", "\u{85}"]
        {
            self.add(format!("{before:?} before a request"), format!("{before}{post}"), DOUBTFUL);
        }
        for behind in ["\r\n", "\r\n\r\n"] {
            self.add(format!("{behind:?} behind a request"), format!("{post}{behind}"), TAKEN);
        }
    }

    fn kinds(&mut self) {
        let unsupported = refused(415, "unsupported_media_type");
        for kind in [
            "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json",
            "text/json", ",", "application/jsonx",
        ] {
            let head = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{RIGHT}\r\n{GOOD}");
            self.add(format!("the type {kind:?}"), head, unsupported);
        }
        for kind in [
            "application/json", "APPLICATION/JSON", "application/json; charset=utf-8", "application/json;",
            "application/x+json", "a/b+JSON ;c",
        ] {
            let head = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{RIGHT}\r\n{GOOD}");
            self.add(format!("the type {kind:?}"), head, TAKEN);
        }
        for coding in
            ["gzip", "deflate", "br", "identity, gzip", "x", "", "chunked", "identity\r\nContent-Encoding: gzip"]
        {
            self.post("a coding of the body", format!("Content-Encoding: {coding}\r\n{RIGHT}"), GOOD, unsupported);
        }
        self.post("no coding of the body", format!("Content-Encoding: Identity\r\n{RIGHT}"), GOOD, TAKEN);
        for keys in ["a b", "\u{e9}", "", "\"\"", "stripe:1", "a,b", "\"a", "../a"] {
            let verdict = answered(400, "invalid_payment_id");
            self.post("a payment id in the head", format!("Idempotency-Key: {keys}\r\n{RIGHT}"), GOOD, verdict);
        }
        let twice = format!("Idempotency-Key: a\r\nIdempotency-Key: a\r\n{RIGHT}");
        self.post("two payment ids in the head", twice, GOOD, answered(400, "bad_request"));
    }
}

const CODINGS: &[&str] = &[
    "", "identity", "gzip", "deflate", "compress", "br", "x", "xchunked", "chunkedx", "x-chunked", "chunke",
    "chunked.", "chunked,", ",chunked", ", chunked", "chunked, chunked", "chunked,chunked", "gzip, chunked",
    "chunked, gzip", "identity, chunked", "chunked, identity", "chunked;q=1", "chunked; a=b", "chunked a", "a chunked",
    "chun ked", "\"chunked\"", "'chunked'", "(chunked)", "chunked chunked", "chunked\u{a0}", "\u{a0}chunked",
    "chun\u{212a}ed", "%63hunked", "chunked/1", "chunked=1", "chunked:", ":chunked", "chunked\\", "trailers", "null",
    "0",
];
