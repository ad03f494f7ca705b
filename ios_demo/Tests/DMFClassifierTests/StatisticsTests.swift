import XCTest

@testable import DMFClassifier

final class StatisticsTests: XCTestCase {
    private let good = FakeDevice().currentState
    private let steady = [Double](repeating: 5, count: 30)

    func testPercentilesAreNumpys() throws {
        let cases = try XCTUnwrap(Fixtures.statistics()["percentiles"]?.list(of: \.object))
        XCTAssertEqual(cases.count, 7)
        for each in cases {
            let samples = try numbers(each["samples"])
            let values = try XCTUnwrap(each["values"]?.object)
            XCTAssertEqual(values.count, 5)
            for (percent, value) in values {
                XCTAssertEqual(percentile(samples, try XCTUnwrap(Double(percent))), value.number)
            }
            let expected = try XCTUnwrap(each["mean"]?.number)
            XCTAssertEqual(mean(samples), expected, accuracy: 1e-12 * expected)
        }
    }

    func testTheMedianIsNotTheNearestSample() {
        XCTAssertEqual(percentile([2, 1], 50), 1.5)
    }

    func testProbabilitiesAreExactTo14Digits() throws {
        for each in try XCTUnwrap(Fixtures.statistics()["softmax"]?.list(of: \.object)) {
            let expected = try numbers(each["probabilities"])
            let probabilities = softmax(try numbers(each["logits"]).map(Float.init))
            XCTAssertEqual(probabilities.count, expected.count)
            XCTAssertEqual(probabilities.reduce(0, +), 1, accuracy: 1e-14)
            for (probability, value) in zip(probabilities, expected) {
                XCTAssertEqual(probability, value, accuracy: 1e-14 * value)
            }
        }
    }

    func testTheBestClassesComeFirstAndOfEqualOnesTheLower() throws {
        for each in try XCTUnwrap(Fixtures.statistics()["softmax"]?.list(of: \.object)) {
            let top = topK(softmax(try numbers(each["logits"]).map(Float.init)), 3)
            XCTAssertEqual(top.map(\.classIndex), try XCTUnwrap(each["top3"]?.list(of: \.int)))
            XCTAssertEqual(top.map(\.probability), top.map(\.probability).sorted(by: >))
        }
    }

    func testASteadyCoolDeviceHasNoFlags() {
        XCTAssertEqual(flags(), [])
        XCTAssertEqual(flags(selfTestPassed: nil), [])
    }

    func testEachFlagHasItsReason() {
        for hot in [1, 3, 4] { XCTAssertEqual(flags(before: state { $0.thermalStatus = hot }), [.throttled]) }
        XCTAssertEqual(flags(after: state { $0.thermalStatus = 1 }), [.throttled])
        XCTAssertEqual(flags(before: state { $0.batterySaver = true }), [.batterySaver])
        XCTAssertEqual(flags(after: state { $0.batterySaver = true }), [.batterySaver])
        XCTAssertEqual(flags(before: state { $0.screenOn = false }), [.screenOff])
        XCTAssertEqual(flags(after: state { $0.screenOn = false }), [.screenOff])
        XCTAssertEqual(flags([Double](repeating: 5, count: 29)), [.tooFewSamples])
        XCTAssertEqual(flags(foreground: false), [.notForeground])
        XCTAssertEqual(flags(selfTestPassed: false), [.wrongAnswers])
    }

    func testWhatTheDeviceDoesNotTellIsNoFlag() {
        XCTAssertEqual(flags(before: silentState, after: silentState), [])
    }

    func testALastQuarterSlowerThanTheFirstByMoreThanAFifthIsThrottled() {
        func rising(_ last: Double) -> [Double] { (0..<40).map { $0 < 30 ? 10 : last } }
        XCTAssertEqual(flags(rising(12)), [])
        XCTAssertEqual(flags(rising(12.001)), [.throttled])
        XCTAssertEqual(flags((0..<40).map { $0 < 36 ? 10 : 1000 }), []) // fewer than half of the quarter
    }

    func testFewerThanEightSamplesHaveNoQuarters() {
        XCTAssertEqual(flags((1...7).map(Double.init)), [.tooFewSamples])
        XCTAssertEqual(flags((1...8).map(Double.init)), [.throttled, .tooFewSamples])
    }

    func testFlagsAreNamedAsInTheSchema() {
        XCTAssertEqual(
            Flag.allCases.map(\.rawValue),
            ["throttled", "battery_saver", "screen_off", "too_few_samples", "not_foreground", "wrong_answers"]
        )
    }

    private func state(_ change: (inout DeviceState) -> Void) -> DeviceState {
        var state = good
        change(&state)
        return state
    }

    private func flags(
        _ samplesMs: [Double]? = nil, before: DeviceState? = nil, after: DeviceState? = nil, foreground: Bool = true,
        selfTestPassed: Bool? = true
    ) -> [Flag] {
        invalidBecause(
            samplesMs ?? steady, before: before ?? good, after: after ?? good, foreground: foreground,
            selfTestPassed: selfTestPassed
        )
    }

    private func numbers(_ json: JSON?) throws -> [Double] {
        try XCTUnwrap(json?.list(of: \.number))
    }
}

let silentState = DeviceState(
    thermalStatus: nil, batteryPercent: nil, charging: nil, batterySaver: nil, screenOn: nil, loadAverage: nil
)
