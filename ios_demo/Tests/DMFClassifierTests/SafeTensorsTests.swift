import XCTest

@testable import DMFClassifier

final class SafeTensorsTests: XCTestCase {
    private let header = """
        {"__metadata__": {"names": "[]"},
         "b": {"dtype": "F64", "shape": [1], "data_offsets": [3, 11]},
         "a": {"dtype": "U8", "shape": [3, 1], "data_offsets": [0, 3]}}
        """
    private let data = Data([1, 2, 255]) + littleEndian(-1.5)

    func testTensorsAndMetadataAreRead() throws {
        let tensors = try read(safeTensors(header, data))
        XCTAssertEqual(tensors.metadata, ["names": "[]"])
        let bytes = try tensors.tensor("a", .uint8, rank: 2)
        XCTAssertEqual(bytes.shape, [3, 1])
        XCTAssertEqual(Array(bytes.data), [1, 2, 255])
        XCTAssertEqual(try tensors.tensor("b", .float64, rank: 1).doubles, [-1.5])
        XCTAssertTrue(tensors.contains("a"))
        XCTAssertFalse(tensors.contains("c"))
    }

    func testIntegersAreRead() throws {
        let header = #"{"a": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}"#
        let data = [Int64(-1), 1 << 40].map { number in withUnsafeBytes(of: number.littleEndian) { Data($0) } }
        let tensors = try read(safeTensors(header, data[0] + data[1]))
        XCTAssertEqual(try tensors.tensor("a", .int64, rank: 1).ints, [-1, 1 << 40])
    }

    /// One begins where the next one does, and which is named first is up to the file.
    func testTensorsOfNothingAreReadWhereverTheyAre() throws {
        for begin in [0, 3] {
            for name in ["0", "z"] {
                let empty = #""\#(name)": {"dtype": "F32", "shape": [0, 9], "data_offsets": [\#(begin), \#(begin)]}"#
                let full = #""a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}"#
                let tensors = try read(safeTensors("{\(empty), \(full)}", Data([1, 2, 3])))
                XCTAssertEqual(try tensors.tensor(name, .float32, rank: 2).floats, [])
                XCTAssertEqual(Array(try tensors.tensor("a", .uint8, rank: 1).data), [1, 2, 3])
            }
        }
    }

    func testWhatPythonWroteIsRead() throws {
        let weights = try Fixtures.tensors("weights").tensor("w", .float32, rank: 2)
        XCTAssertEqual(weights.shape, [192, 5])
        XCTAssertEqual(weights.floats.count, 960)
        XCTAssertTrue(weights.floats.allSatisfy { (-1.28...1.27).contains($0) })
        XCTAssertGreaterThan(Set(weights.floats).count, 100)
        XCTAssertEqual(try Fixtures.tensors("weights").metadata, [:])
    }

    func testOnlyWhatIsAskedForIsGiven() throws {
        let tensors = try read(safeTensors(header, data))
        assertDamaged("it has no tensor c") { try tensors.tensor("c", .uint8, rank: 1) }
        assertDamaged("b is F64 [1], must be F32 of 1 dimensions") { try tensors.tensor("b", .float32, rank: 1) }
        assertDamaged("a is U8 [3, 1], must be U8 of 1 dimensions") { try tensors.tensor("a", .uint8, rank: 1) }
    }

    func testTruncatedFilesAreRefused() {
        let whole = safeTensors(header, data)
        assertDamaged("its tensors take 11 bytes, 10 are there") { try read(whole.dropLast()) }
        assertDamaged("its tensors take 11 bytes, 12 are there") { try read(whole + [0]) }
        assertDamaged("it ends in the length of its header") { try read(whole.prefix(7)) }
        assertDamaged("it ends in the length of its header") { try read(Data()) }
        for size in 0..<whole.count {
            XCTAssertThrowsError(try read(whole.prefix(size)), "\(size)") { XCTAssertTrue($0 is PackageError) }
        }
    }

    func testAHeaderLongerThanTheFileIsRefused() {
        let rest = header.utf8.count + data.count
        for length in [Int64(rest + 1), 1 << 40, .max, -1, .min] {
            assertDamaged("its header is \(length) bytes long, \(rest) are there") {
                try read(safeTensors(header, data, headerBytes: length))
            }
        }
    }

    func testOffsetsThatOverlapOrLeaveAGapAreRefused() {
        assertDamaged("b begins at byte 2, the tensor before it ends at 3") { try read("[3, 11]", "[2, 10]") }
        assertDamaged("b begins at byte 4, the tensor before it ends at 3") { try read("[3, 11]", "[4, 12]") }
        assertDamaged("a begins at byte 1, the tensor before it ends at 0") { try read("[0, 3]", "[1, 4]") }
    }

    func testOffsetsThatDoNotFitTheShapeAreRefused() {
        assertDamaged("b F64 [1] takes 8 bytes, not those from 3 to 10") { try read("[3, 11]", "[3, 10]") }
        assertDamaged("a U8 [3, 1] takes 3 bytes, not those from 3 to 0") { try read("[0, 3]", "[3, 0]") }
        assertDamaged("a U8 [3, 1] takes 3 bytes, not those from -3 to 0") { try read("[0, 3]", "[-3, 0]") }
        assertDamaged("a U8 [3, -1] takes an impossible number of bytes, not those from 0 to 3") {
            try read("[3, 1]", "[3, -1]")
        }
        assertDamaged("a U8 [4294967296, 4294967296] takes an impossible number of bytes, not those from 0 to 3") {
            try read("[3, 1]", "[4294967296, 4294967296]")
        }
        let largest = Int.max
        assertDamaged("a U8 [3, 1] takes 3 bytes, not those from \(-largest) to \(largest)") {
            try read("[0, 3]", "[\(-largest), \(largest)]")
        }
    }

    func testAnotherTypeIsRefused() {
        assertDamaged("b is BF16, this app reads U8, I64, F32, F64") { try read("F64", "BF16") }
    }

    func testAHeaderThatIsNotOneIsRefused() {
        let headers = ["", "[]", "{", #"{"a": 1}"#, #"{"a": {}}"#, #"{"a": {"dtype": "U8", "shape": 1}}"#]
            + [#"{"__metadata__": {"names": 1}}"#, #"{"__metadata__": []}"#]
        for header in headers {
            XCTAssertThrowsError(try read(safeTensors(header, data)), header) { error in
                let message = (error as? PackageError)?.message ?? ""
                XCTAssertTrue(message.hasPrefix("file.safetensors: "), message)
                XCTAssertTrue(message.hasSuffix("; export the package again"), message)
            }
        }
    }

    private func read(_ content: Data) throws -> SafeTensors {
        try SafeTensors(content, source: "file.safetensors")
    }

    private func read(_ old: String, _ new: String) throws -> SafeTensors {
        XCTAssertTrue(header.contains(old))
        return try read(safeTensors(header.replacingOccurrences(of: old, with: new), data))
    }

    private func assertDamaged<T>(_ problem: String, line: UInt = #line, _ work: () throws -> T) {
        assertPackageError("file.safetensors: \(problem); export the package again", line: line, work)
    }
}
