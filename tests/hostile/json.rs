//! Texts that are JSON, nearly JSON, or what JSON leaves to its readers, and what payrelay makes of each.
//!
//! The situations are those which JSONTestSuite looks for; the texts and the verdicts are our own.

use super::judge::Json;

/// A text, and whether it may be a `msg`.
pub(crate) struct Case {
    pub(crate) text: Vec<u8>,
    pub(crate) verdict: Json,
}

/// The messages.
pub(crate) fn messages() -> Vec<Case> {
    let mut cases = Cases::default();
    cases.values();
    cases.numbers();
    cases.strings();
    cases.bytes_that_are_no_text();
    cases.lists_and_objects();
    cases.blanks();
    cases.around_a_value();
    cases.limits();
    cases.0
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn all<T: AsRef<[u8]>>(&mut self, verdict: Json, texts: impl IntoIterator<Item = T>) {
        self.0.extend(texts.into_iter().map(|text| Case { text: text.as_ref().to_vec(), verdict }));
    }

    fn valid<T: AsRef<[u8]>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.all(Json::Valid, texts);
    }

    fn no<T: AsRef<[u8]>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.all(Json::No, texts);
    }

    fn values(&mut self) {
        self.valid(["null", "true", "false", "\"\"", "[]", "{}", "0", "[null]", "[true,false,null]"]);
        self.no([
            "", "nul", "nulll", "Null", "NULL", "None", "nil", "undefined", "True", "TRUE", "tru", "truee", "False", "fals",
            "yes", "on", "nul\0l", "n", "t", "f", "null null", "true,false", "nulltrue", "n\u{fc}ll", "NaN", "nan", "-NaN", "+NaN",
            "Infinity", "-Infinity", "+Infinity", "Inf", "-inf", "infinity", "[NaN]", "[-Infinity]", "a", "abc", "_", "$", "@",
            "*", "/", "\\", "'", "`", "~", "\u{2028}", "(1)", "<null>", "#null", "new Date()", "function(){}", "a:1", ":", "::",
        ]);
    }

    fn numbers(&mut self) {
        let valid = [
            "0", "-0", "1", "-1", "9", "10", "42", "1234567890", "0.0", "-0.0", "0.1", "10.00", "1.5", "-1.5", "0e0", "0E0", "0e+0",
            "0e-0", "1e1", "1E1", "1e+1", "1e-1", "1.5e3", "1.50E+03", "-1.5e-3", "0.00e00", "1e0001", "1E400", "-1E400", "1e-400",
            "1e99999", "0e99999999999", "123456789012345678901234567890", "9007199254740993", "18446744073709551616",
            "-9223372036854775809", "0.1000000000000000055511151231257827", "1.0000000000000000000000000001", "100000000000000000e-17",
        ];
        self.valid(valid);
        self.valid(valid.map(|number| format!("[{number}]")));
        let no = [
            "00", "01", "-01", "-00", "012", "0123.4", "00.0", "00e0", "-00e0", "+0", "+1", "++1", "--1", "-", "+", "-+1", "+-1", "- 1",
            "1-", "1+", "1-1", "1+1", "1.", "-1.", "1.e1", "1.e+1", ".1", "-.1", "+.1", ".", "-.", "..1", "1..2", "1.2.3", "1.2.", "e1", "E1", ".e1",
            "1e", "1E", "1e+", "1e-", "1e+-1", "1e1.5", "1e1e1", "1ee1", "1eE1", "0e", "0.e1", "1.5e", "1 e1", "1e 1", "1 .5", "1. 5", "1 000",
            "1,000", "1_000", "1'000", "0x1", "0X1F", "0xg", "0b1", "0o7", "1a", "1A", "1f", "1l", "1n", "1%", "$1", "1\u{20ac}", "\u{661}", "\u{ff11}",
            "1\u{ff0e}5", "\u{2212}1", "1\u{b2}", "0.\u{661}", "1\0", "1x", "-a", "-true", "-\"1\"", "1/2", "1:2", "1;",
        ];
        self.no(no);
        self.no(no.map(|number| format!("[{number}]")).into_iter().filter(|text| text != "[1,000]"));
    }

    fn strings(&mut self) {
        for escaped in (b' '..=b'~').map(char::from).filter(|escaped| *escaped != 'u') {
            let verdict = if "\"\\/bfnrt".contains(escaped) { Json::Valid } else { Json::No };
            self.all(verdict, [format!("\"\\{escaped}\"")]);
        }
        for control in 0..0x20u8 {
            self.no([[b'"', control, b'"'].as_slice(), &[b'"', b'a', control, b'b', b'"'], &[b'"', b'\\', control, b'"']]);
        }
        self.valid([
            "\"a\"", "\"\u{7f}\"", "\"\u{80}\"", "\"\u{85}\"", "\"\u{a0}\"", "\"\u{e9}\"", "\"e\u{301}\"", "\"\u{7ff}\"", "\"\u{800}\"", "\"\u{2028}\"",
            "\"\u{2029}\"", "\"\u{200b}\"", "\"\u{202e}\"", "\"\u{feff}\"", "\"\u{d7ff}\"", "\"\u{e000}\"", "\"\u{fdd0}\"", "\"\u{fffd}\"", "\"\u{fffe}\"",
            "\"\u{ffff}\"", "\"\u{10000}\"", "\"\u{1f600}\"", "\"\u{10fffe}\"", "\"\u{10ffff}\"", "\"'\"", "\"/\"", "\"//\"", "\"/* */\"", "\"<!-- -->\"",
            "\"{}[],:\"", "\"{\\\"type\\\":\\\"payment\\\"}\"", "\"\\\\\"", "\"\\\\\\\"\"", "\"\\\\\\\\\"", "\"a\\nb\"",
        ]);
        // Escapes of every sort, lone halves of a pair too: they are JSON, if no text.
        for escape in [
            "0000", "0001", "000a", "000A", "000d", "001f", "0020", "0022", "005c", "005C", "007f", "0080", "00e9", "00E9", "2028", "2029", "D7FF", "E000",
            "FEFF", "FFFD", "FFFE", "FFFF", "d800", "D800", "dbff", "dc00", "DFFF", "d83d\\ude00", "D83D\\uDE00", "de00\\ud83d", "d83d\\ud83d",
            "d83dx", "d83d\\n", "d83d\\u0041", "1234", "abcd", "ABCD", "aBcD",
        ] {
            self.valid([format!("\"\\u{escape}\""), format!("{{\"\\u{escape}\":1}}")]);
        }
        for escape in [
            "", "1", "12", "123", "12g4", "g123", "123g", "-123", "+123", " 123", "12 4", "123 ", "{41}", "x041", "0x41", "\\u1234", "12\\u1234", "\u{661}234",
            "00\0", "d83d\\u", "d83d\\ude0", "d83d\\udeg0", "d83d\\x", "000\"",
        ] {
            self.no([format!("\"\\u{escape}\"")]);
        }
        self.no([
            "\"", "\"a", "a\"", "'a'", "\"a'", "'a\"", "`a`", "\u{201c}a\u{201d}", "\u{ab}a\u{bb}", "\"\\\"", "\"\\", "\"\\\\\\\"", "\"\\U00e9\"", "\"\\x41\"",
            "\"\\101\"", "\"\\0\"", "\"a\"b\"", "\"a\"\"b\"", "\"a\" \"b\"", "\"a\"+\"b\"", "\"a\";", "@\"a\"", "u\"a\"", "b\"a\"", "r\"a\"", "\\\"a\\\"", "\"\\u\"",
            "\"\\\u{e9}\"", "\"\\ud83d\\", "\"\n\"", "\"a\tb\"", "\"\r\n\"",
        ]);
    }

    fn bytes_that_are_no_text(&mut self) {
        let sequences: [&[u8]; 30] = [
            b"\x80", b"\xbf", b"\x80\x80", b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xc2", b"\xc3\x28", b"\xe0\x80\x80", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xe1\x80",
            b"\xe2\x28\xa1", b"\xe2\x82\x28", b"\xed\xa0\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf0\x80\x80\x80",
            b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf0\x28\x8c\xbc", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
            b"\xfe", b"\xff", b"\xe9",
        ];
        for sequence in sequences {
            self.no([[b"\"", sequence, b"\""].concat(), [b"{\"", sequence, b"\":1}"].concat(), [b"\"\\", sequence, b"\""].concat(), sequence.to_vec()]);
        }
        let utf16: [&[u8]; 6] =
            [b"[\0]\0", b"\0[\0]", b"\xff\xfe[\0]\0", b"\xfe\xff\0[\0]", b"\xff\xfe\0\0[\0\0\0]\0\0\0", b"\"\0a\0\"\0"];
        self.no(utf16);
    }

    fn lists_and_objects(&mut self) {
        self.valid([
            "[[]]", "[[],[]]", "[[[]]]", "[{}]", "[1,2]", "[\"\"]", "[1,\"a\",null,true,{},[]]", "[ ]", "{ }", "[\n]", "{\"\":0}", "{\"a\":{}}",
            "{\"a\":[]}", "{\"a\":1,\"b\":2}", "{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}", "{\"a\":{\"a\":{\"a\":1}}}", "{\"\\u0000\":0}",
            "{\"__proto__\":1}", "{\"constructor\":{}}", "{\"type\":\"ack\",\"seq\":9}", "{\"client\":\"02\",\"msg\":2}", "{\"\u{e9}\":1}", "{\" \":1}",
            "{\"a\" : 1 , \"b\":[ 2 ]}", "{\"1\":1}", "[1,[2,[3,[4]]]]", "{\"seq\":1,\"accepted_at\":2,\"channel\":\"x\"}",
        ]);
        self.no([
            "[", "]", "[[", "]]", "[]]", "[[]", "[}", "{]", "[)", "(]", "[,", "[,]", "[,1]", "[1,]", "[1,,2]", "[,,]", "[1 2]", "[1,\n", "[1", "[1,2", "[1:2]",
            "[1;2]", "[1=>2]", "[\"a\",", "[\"a\"", "[\"a\":1]", "[1][2]", "[]x", "x[]", "[x", "[*]", "[1,*]", "[...]", "[1,2]]", "[[1,2]", "[\"\": 1]",
            "[\"a\" 1]", "[1,'a']", "{", "}", "{{}}", "{}}", "{{}", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\",}", "{:1}", "{\"a\" 1}", "{\"a\"=1}", "{\"a\"=>1}", "{\"a\"::1}",
            "{\"a\":1,}", "{\"a\":1,,\"b\":2}", "{,\"a\":1}", "{\"a\":1 \"b\":2}", "{\"a\":1;\"b\":2}", "{\"a\":1,\"b\"}", "{\"a\":1,\"b\":}", "{\"a\":1", "{\"a\":",
            "{\"a\"", "{\"a", "{\"", "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{true:1}", "{[]:1}", "{{}:1}", "{\"a\":1 2}", "{\"a\":b}", "{\"a\":(1)}",
            "{\"a\":1}{\"b\":2}", "{\"a\":1},", ",{\"a\":1}", "{\"a\":1}]", "[{\"a\":1]", "{\"a\":[1}", "{\"a\":[1}]", "{\"a\":1}}", "{\"a\":\"b}", "{...{}}", "{\"a\":1...}",
            "{\"a\":/**/1}", "{\"a\":1//\n}", "{\"a\":1/* */}", "{/**/}", "[/**/]", "[1/*,2*/]", "[1//\n]", "[#1\n]", "[<!-- -->]", "{\"a\":\"b\"}#", "{\"a\":1}/**/",
            "//\n1", "/**/1", "1/**/", "1//", "#\n1", "<!-- -->1", "--1\n",
        ]);
    }

    fn blanks(&mut self) {
        for blank in [" ", "\t", "\n", "\r", "\r\n", "\n\n", " \t\r\n ", "    "] {
            self.valid([
                format!("{blank}1"), format!("1{blank}"), format!("{blank}[{blank}1{blank},{blank}2{blank}]{blank}"),
                format!("{blank}{{{blank}\"a\"{blank}:{blank}1{blank}}}{blank}"), format!("{blank}\"a\"{blank}"),
            ]);
            self.no([blank.to_owned()]);
        }
        // Blanks to others, not to JSON.
        for blank in [
            "\0", "\x08", "\x0b", "\x0c", "\x1c", "\x1f", "\x7f", "\u{85}", "\u{a0}", "\u{1680}", "\u{180e}", "\u{2000}", "\u{200a}", "\u{200b}", "\u{200c}", "\u{2028}",
            "\u{2029}", "\u{202f}", "\u{205f}", "\u{2060}", "\u{3000}", "\u{feff}", "\u{e000}",
        ] {
            self.no([format!("{blank}1"), format!("1{blank}"), format!("[{blank}1]"), format!("[1{blank}]"), format!("{{\"a\"{blank}:1}}"), format!("[]{blank}")]);
        }
    }

    fn around_a_value(&mut self) {
        for value in ["1", "\"a\"", "[]", "{}", "null"] {
            self.no([
                format!("{value} {value}"), format!("{value}\n{value}"), format!("{value},"), format!(",{value}"), format!("{value};"), format!("{value}x"),
                format!("{value}]"), format!("{value}}}"), format!("({value})"), format!("{value}\0"), format!("\0{value}"), format!("\u{feff}{value}"),
                format!("{value}\u{feff}"), format!("callback({value})"), format!("while(1);{value}"), format!(")]}}',\n{value}"), format!("\x1e{value}"),
                format!("data: {value}"), format!("={value}"), format!("{value}\u{1a}"),
            ]);
        }
    }

    fn limits(&mut self) {
        let lists = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let mixed = |levels: usize| format!("{}{}", "[{\"a\":".repeat(levels / 2) + "[", "]".to_owned() + &"}]".repeat(levels / 2));
        for levels in [1, 2, 63, 64] {
            self.valid([lists(levels), objects(levels)]);
        }
        self.valid([mixed(62)]);
        for levels in [65, 66, 127, 128, 129, 1_000, 20_000] {
            self.all(Json::TooDeep, [lists(levels), objects(levels), mixed(levels)]);
        }
        for open in [65, 128, 1_000, 40_000] {
            self.no(["[".repeat(open), "{\"a\":".repeat(open), "[{\"a\":".repeat(open / 2)]);
        }
        // Many of them side by side are no depth.
        self.valid([format!("[{}[]]", "[],".repeat(1_000)), format!("\"{}\"", "[".repeat(1_000)), format!("{{\"{}\":1}}", "{".repeat(1_000))]);
        let numbers = |length: usize| {
            [
                "1".repeat(length), format!("-{}", "1".repeat(length - 1)), format!("0.{}", "0".repeat(length - 2)), format!("1e{}", "0".repeat(length - 2)),
                format!("1E+{}", "9".repeat(length - 3)), format!("-1.{}e-1", "5".repeat(length - 6)),
            ]
        };
        for length in [255, 256] {
            self.valid(numbers(length));
        }
        for length in [257, 258, 1_000, 20_000] {
            self.all(Json::LongNumber, numbers(length));
        }
        self.valid([format!("\"{}\"", "1".repeat(1_000)), format!("[{}1]", "1,".repeat(1_000)), format!("\"{}\"", "\\u0041".repeat(10_000))]);
    }
}

/// Whole posts, and the code of the problem; empty where the payment is taken.
pub(crate) fn posts() -> Vec<(Vec<u8>, &'static str)> {
    let mut posts: Vec<(Vec<u8>, &'static str)> = Vec::new();
    let mut all = |code: &'static str, texts: &[&str]| posts.extend(texts.iter().map(|text| (text.as_bytes().to_vec(), code)));
    all("", &[
        r#"{"client":"01","msg":1}"#, r#"{"id":"01","msg":1}"#, r#"{"msg":1,"client":"01"}"#, r#"{"client":"01","id":"01","msg":1}"#,
        r#"{"client":"01","msg":null}"#, r#"{"cl\u0069ent":"\u0030\u0031","msg":1}"#, r#"{"client":"01","msg":1,"payment_id":null,"channel":null,"expires_in":null}"#,
        r#"{"client":"01","msg":1,"CLIENT":"02"}"#, r#"{"client":"01","msg":1,"x":1,"x":2}"#, r#"{"client":"01","msg":1,"x":{"client":"02"}}"#,
        r#"{"client":"01","msg":1,"":""}"#, r#"{"client":"01","msg":1,"x":1e999999}"#, r#"{"client":"01","msg":1,"x":"\u0000"}"#, r#"{"client":"01","id":null,"msg":1}"#,
        r#" { "client" : "01" , "msg" : 1 } "#, r#"{"client":"01","msg":1,"seq":7,"accepted_at":7,"type":"ack"}"#, r#"{"client":"01","msg":1,"x":"\ud800"}"#,
        r#"{"client":"01","msg":{"client":"02","msg":2}}"#, r#"{"client":"01","msg":1,"__proto__":{"client":"02"}}"#, r#"{"client":"01","msg":1,"client ":"02"}"#,
    ]);
    all("bad_request", &[
        "[]", "1", "null", "\"a\"", "true", "[1]", r#"[{"client":"01","msg":1}]"#, r#"["01",null,1,null,null,null]"#, "{}", r#"{"client":"01"}"#, r#"{"msg":1}"#,
        r#"{"client":"01","client":"01","msg":1}"#, r#"{"client":"01","client":"02","msg":1}"#, r#"{"client":"01","cl\u0069ent":"02","msg":1}"#,
        r#"{"client":"01","msg":1,"msg":2}"#, r#"{"client":"01","msg":1,"m\u0073g":2}"#, r#"{"id":"01","id":"01","msg":1}"#, r#"{"client":"01","id":"02","msg":1}"#,
        r#"{"client":"01","msg":1,"payment_id":"a","payment_id":"a"}"#, r#"{"client":"01","msg":1,"channel":"a","channel":"a"}"#,
        r#"{"client":"01","msg":1,"payment_id":null,"payment_id":"a"}"#, r#"{"client":1,"msg":1}"#, r#"{"client":["01"],"msg":1}"#, r#"{"client":{"01":1},"msg":1}"#,
        r#"{"client":true,"msg":1}"#, r#"{"client":null,"msg":1}"#, r#"{"client":1.5,"msg":1}"#, r#"{"client":"01","msg":1,"payment_id":1}"#,
        r#"{"client":"01","msg":1,"payment_id":[]}"#, r#"{"client":"01","msg":1,"channel":1}"#, r#"{"client":"01","msg":1,"channel":{}}"#,
        r#"{"client":"01","msg":1,"expires_in":"1"}"#, r#"{"client":"01","msg":1,"expires_in":0}"#, r#"{"client":"01","msg":1,"expires_in":-1}"#,
        r#"{"client":"01","msg":1,"expires_in":1.0}"#, r#"{"client":"01","msg":1,"expires_in":1e1}"#, r#"{"client":"01","msg":1,"expires_in":31536001}"#,
        r#"{"client":"01","msg":1,"expires_in":18446744073709551616}"#, r#"{"client":"01","msg":1,"expires_in":true}"#, r#"{"client":"01","msg":1,"expires_in":[1]}"#,
    ]);
    all("invalid_client_id", &[
        r#"{"client":"","msg":1}"#, r#"{"client":".","msg":1}"#, r#"{"client":"..","msg":1}"#, r#"{"client":"a b","msg":1}"#, r#"{"client":"a/b","msg":1}"#,
        r#"{"client":"../../x","msg":1}"#, r#"{"client":"{a}","msg":1}"#, r#"{"client":"*","msg":1}"#, r#"{"client":"a\u0000","msg":1}"#, r#"{"client":"a\n","msg":1}"#,
        r#"{"client":"a\r\nb","msg":1}"#, "{\"client\":\"\u{e9}\",\"msg\":1}", "{\"client\":\"\u{ff10}\",\"msg\":1}", r#"{"client":"%30","msg":1}"#, r#"{"client":" 01","msg":1}"#,
        r#"{"client":"01\u00a0","msg":1}"#, r#"{"client":"\ufeff01","msg":1}"#, r#"{"client":"\ud83d\ude00","msg":1}"#, r#"{"client":"a\"b","msg":1}"#, r#"{"client":"a\\","msg":1}"#,
    ]);
    all("invalid_payment_id", &[
        r#"{"client":"01","msg":1,"payment_id":""}"#, r#"{"client":"01","msg":1,"payment_id":"a b"}"#, r#"{"client":"01","msg":1,"payment_id":"\""}"#,
        r#"{"client":"01","msg":1,"payment_id":"a\",\"msg\":2,\"x\":\""}"#, r#"{"client":"01","msg":1,"payment_id":"stripe:a"}"#, r#"{"client":"01","msg":1,"payment_id":"\n"}"#,
        r#"{"client":"01","msg":1,"payment_id":"generic:"}"#, r#"{"client":"01","msg":1,"payment_id":"str\u0069pe:a"}"#,
    ]);
    all("invalid_channel", &[
        r#"{"client":"01","msg":1,"channel":""}"#, r#"{"client":"01","msg":1,"channel":"A"}"#, r#"{"client":"01","msg":1,"channel":"a b"}"#, r#"{"client":"01","msg":1,"channel":"a:b"}"#,
        r#"{"client":"01","msg":1,"channel":"a\",\"payment_id\":\"b"}"#, r#"{"client":"01","msg":1,"channel":"a,b"}"#, r#"{"client":"01","msg":1,"channel":"\u0000"}"#,
    ]);
    all("bad_json", &[
        "", " ", "{", "}", "{\"client\":\"01\",\"msg\":1", "{\"client\":\"01\",\"msg\":1}}", "{\"client\":\"01\",\"msg\":1},", "{\"client\":\"01\",\"msg\":}", "{\"client\":\"01\",msg:1}",
        "{'client':'01','msg':1}", "{\"client\":\"01\",\"msg\":1,}", "{\"client\" \"01\",\"msg\":1}", "\u{feff}{\"client\":\"01\",\"msg\":1}", "{\"client\":\"01\",\"msg\":1}\0",
        "\0{\"client\":\"01\",\"msg\":1}", "{\"client\":\"01\",\"msg\":1}{\"client\":\"01\",\"msg\":2}", "{\"client\":\"0\t1\",\"msg\":1}", "{\"client\":\"01\",\"msg\":1,\"x\":01}",
        "{\"client\":\"01\",\"msg\":1,\"x\":\"\\x\"}", "{\"client\":\"01\",\"msg\":1,\"x\":[1,]}", "{\"client\":\"01\",\"msg\":1,\"x\":tru}", "{\"client\":\"01\",\"msg\":1,\"x\":\"\u{1}\"}",
        "client=01&msg=1", "<client>01</client>", "msg", "{\"client\":\"01\",\"msg\":1,\"x\":NaN}", "{\"client\":\"01\"/**/,\"msg\":1}", "{\"client\":\"01\",\"msg\":1}//",
        // No text, though JSON allows the escape: what has to be one is read as one.
        r#"{"client":"\ud800","msg":1}"#, r#"{"client":"01","msg":1,"payment_id":"\udc00"}"#, r#"{"client":"01","msg":1,"channel":"\ud83dx"}"#,
    ]);
    let no_text: [&[u8]; 6] = [
        b"{\"client\":\"01\",\"msg\":\"\xff\"}", b"{\"client\":\"01\",\"msg\":1,\"x\":\"\xff\"}", b"{\"client\":\"\xff\",\"msg\":1}", b"{\"client\":\"01\",\"msg\":1,\"\xed\xa0\x80\":1}",
        b"{\"client\":\"01\",\"msg\":1,\"x\":{\"\xc0\x80\":\"\"}}", b"\xff\xfe{\0}\0",
    ];
    posts.extend(no_text.into_iter().map(|text| (text.to_vec(), "bad_json")));
    posts
}
