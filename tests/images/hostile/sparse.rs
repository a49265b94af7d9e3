//! Files with holes in the wrong places.

use super::*;

const MAP: &str = "sparse map";

fn v01(map: &str, size: &str, data: &[u8]) -> Layer {
    new()
        .pax(&[
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.as_bytes()),
        ])
        .file("f", data)
}

fn v10(size: &str, data: &[u8]) -> Layer {
    new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .file("GNUSparseFile.0/f", data)
}

/// The map in front of the data, filled to a block.
fn mapped(map: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = map.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(data);
    bytes
}

fn old(segments: &[(u64, u64)], real_size: u64, data: &[u8]) -> Layer {
    let mut head = Head::gnu(b'S', "f").field(483, format!("{real_size:011o}\0").as_bytes());
    for (at, (offset, length)) in segments.iter().enumerate() {
        let text = format!("{offset:011o}\0{length:011o}\0");
        head = head.field(386 + 24 * at, text.as_bytes());
    }
    new().head(head, data)
}

hostile! {
    sparse_of_the_old_kind: Line("f", "file 2000 "), |_| old(&[(1000, 5)], 2000, b"12345");
    sparse_of_the_old_kind_all_hole: Line("f", "file 2000 "), |_| old(&[(2000, 0)], 2000, b"");
    sparse_old_overlaps: No(MAP), |_| old(&[(0, 512), (100, 512)], 2000, &[b'x'; 1024]);
    sparse_old_out_of_order: No(MAP), |_| old(&[(1024, 512), (0, 512)], 2000, &[b'x'; 1024]);
    sparse_old_beyond_its_size: No(MAP), |_| old(&[(1000, 5)], 1001, b"12345");
    sparse_old_with_too_little_data: No(MAP), |_| old(&[(1000, 500)], 2000, b"12345");
    sparse_old_with_too_much_data: No(MAP), |_| old(&[(1000, 1)], 2000, b"12345");
    sparse_old_with_an_empty_extension: Line("f", "file 0 "), |_| {
        new().raw(&Head::gnu(b'S', "f").field(482, b"\x01").block())
    };
    sparse_old_without_end: No("extended headers"), |_| {
        let mut extension = [0; 512];
        extension[504] = 1;
        let head = Head::gnu(b'S', "f").field(482, b"\x01").block();
        (0..3000).fold(new().raw(&head), |layer, _| layer.raw(&extension))
    };
    sparse_0_0: Line("f", "file 20 "), |_| {
        new()
            .pax(&[
                ("GNU.sparse.size", b"20"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"1"),
                ("GNU.sparse.numbytes", b"2"),
                ("GNU.sparse.offset", b"10"),
                ("GNU.sparse.numbytes", b"3"),
            ])
            .file("f", "12345")
    };
    sparse_0_0_in_the_wrong_order: No(MAP), |_| {
        new()
            .pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.numbytes", b"2"), ("GNU.sparse.offset", b"1")])
            .file("f", "12")
    };
    sparse_0_1: Line("f", "file 20 "), |_| v01("1,2,10,3", "20", b"12345");
    sparse_0_1_odd: No(MAP), |_| v01("1,2,10", "20", b"12345");
    sparse_0_1_overlaps: No(MAP), |_| v01("0,3,2,2", "20", b"12345");
    sparse_0_1_not_numbers: No(MAP), |_| v01("1,-2", "20", b"12345");
    sparse_0_1_overflows: No(MAP), |_| v01("18446744073709551615,5", "20", b"12345");
    sparse_0_1_sum_overflows: No(MAP), |_| {
        v01("0,18446744073709551615,18446744073709551615,6", "20", b"12345")
    };
    sparse_without_a_size: No(MAP), |_| new().pax(&[("GNU.sparse.map", b"0,1")]).file("f", "x");
    sparse_of_ten_terabytes: No("unpacks to more"), |_| v01("0,1", "10995116277760", b"x");
    sparse_1_0: Line("f", "file 20 "), |_| v10("20", &mapped("2\n1\n2\n10\n3\n", b"12345"));
    sparse_1_0_all_hole: Line("f", "file 20 "), |_| v10("20", &mapped("0\n", b""));
    sparse_1_0_without_map: No(MAP), |_| v10("20", b"");
    sparse_1_0_cut_map: No(MAP), |_| v10("20", b"2\n1\n");
    sparse_1_0_endless_number: No(MAP), |_| v10("20", &[b'1'; 600]);
    sparse_1_0_not_a_number: No(MAP), |_| v10("20", b"x\n");
    sparse_1_0_empty_number: No(MAP), |_| v10("20", b"\n");
    sparse_1_0_many_segments: No(MAP), |_| v10("20", b"99999999999\n1\n");
    sparse_1_0_not_filled: No(MAP), |_| v10("20", b"0\n");
    sparse_version_2: No(MAP), |_| {
        new()
            .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")])
            .file("f", "x")
    };
    sparse_size_twice: No("contradict"), |_| {
        new()
            .pax(&[("GNU.sparse.size", b"1"), ("GNU.sparse.realsize", b"2"), ("GNU.sparse.map", b"0,1")])
            .file("f", "x")
    };
}
