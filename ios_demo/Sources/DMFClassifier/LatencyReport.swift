import Foundation

/// What chose among a detector's boxes within a sample; the raw value is its name in reports.
public enum PostProcessing: String, CaseIterable, Sendable {
    /// Nothing: the network alone was timed.
    case none
    case graph
    /// Who ran the network, behind it.
    case runner

    init(_ form: Form, isTimed: Bool) {
        switch form {
        case .dense: self = isTimed ? .runner : .none
        case .coremlNMS: self = .graph
        }
    }
}

/// One package measured on this device, as a report of schema latency-v3, which describes each field.
public struct LatencyReport: Equatable, Sendable {
    public var manifest: Manifest
    public var artifactSHA256: String
    public var runtime: RuntimeInfo
    public var input: String
    /// nil for a classifier.
    public var postProcessing: PostProcessing?
    public var warmupCount: Int
    public var coldLoadMs: Double
    public var samplesMs: [Double]
    public var baselineMemoryBytes: Int
    public var peakMemoryBytes: Int
    public var selfTest: SelfTestResult?
    public var invalidBecause: [Flag]
    public var computePlan: ComputePlan?
    public var measuredAt: Date
    public var device: DeviceDescription
    public var before: DeviceState
    public var after: DeviceState

    public var p50Ms: Double { percentile(samplesMs, 50) }
    public var p90Ms: Double { percentile(samplesMs, 90) }
    public var p99Ms: Double { percentile(samplesMs, 99) }
    public var meanMs: Double { mean(samplesMs) }
    public var minMs: Double { percentile(samplesMs, 0) }
}

/// The document that holds `reports`, of schema latency-v3, as JSON.
public func latencyResults(_ reports: [LatencyReport]) throws -> Data {
    let document = JSON.object([
        "schema_version": .int(3),
        "reports": .list(reports.map(\.json)),
        "comparisons": .list([])
    ])
    return try document.data(pretty: true)
}

extension LatencyReport {
    /// Every field is written, those without a value as null.
    var json: JSON {
        .object([
            "package": .text(manifest.name),
            "artifact_sha256": .text(artifactSHA256),
            "model": .text(manifest.model.variant),
            "format": .text(Manifest.format),
            "precision": .text(manifest.precision),
            "target": .text(manifest.target),
            "on": .text(device.platform.rawValue),
            "runtime": .object([
                "name": .text(runtime.name),
                "version": .text(runtime.version),
                "delegate_partitions": .null
            ]),
            "accelerator": .text(runtime.computeUnits.rawValue),
            "threads": .int(device.logicalCores), // Core ML is given no number, it may use all
            "input": .text(input),
            "post_processing": JSON(postProcessing?.rawValue),
            "warmup_count": .int(warmupCount),
            "cold_load_ms": .double(coldLoadMs),
            "samples_ms": .list(samplesMs.map(JSON.double)),
            "p50_ms": .double(p50Ms),
            "p90_ms": .double(p90Ms),
            "p99_ms": .double(p99Ms),
            "mean_ms": .double(meanMs),
            "min_ms": .double(minMs),
            "baseline_memory_bytes": .int(baselineMemoryBytes),
            "peak_memory_bytes": .int(peakMemoryBytes),
            "golden": selfTest?.json ?? .null,
            "invalid_because": .list(invalidBecause.map { .text($0.rawValue) }),
            "compute_plan": computePlan?.json ?? .null,
            "conditions": conditions
        ])
    }

    private var conditions: JSON {
        .object([
            "measured_at": .text(utc(measuredAt)),
            "machine": .text(device.machine),
            "cpu": .text(device.cpu),
            "logical_cores": .int(device.logicalCores),
            "os": .text(device.os),
            "python": .null,
            "governor": .null,
            "load_average_before": JSON(before.loadAverage),
            "load_average_after": JSON(after.loadAverage),
            "device": .object([
                "manufacturer": .text("Apple"),
                "model": .text(device.model),
                "soc": .null,
                "sdk": .int(device.majorOSVersion),
                "app": .text(device.app),
                "before": before.json,
                "after": after.json
            ])
        ])
    }
}

extension SelfTestResult {
    /// JSON has no infinity: an answer that is no number counts as the largest error there is.
    fileprivate var json: JSON {
        .object([
            "passed": .bool(passed),
            "max_abs_error": .double(min(worst.maxAbsError, .greatestFiniteMagnitude)),
            "budget_abs_error": .double(worst.budgetAbsError),
            "image": .text(worst.image)
        ])
    }
}

extension ComputePlan {
    fileprivate var json: JSON {
        let operations = entries.map { entry in
            entry.counts.fields.merging(["op": .text(entry.type), "module": JSON(entry.module)]) { first, _ in first }
        }
        return .object(counts.fields.merging(["by_op": .list(operations.map(JSON.object))]) { first, _ in first })
    }
}

extension DeviceCounts {
    fileprivate var fields: [String: JSON] {
        ["cpu": .int(cpu), "gpu": .int(gpu), "neural_engine": .int(neuralEngine)]
    }
}

extension DeviceState {
    /// Apple's systems tell neither the battery's temperature nor the clock.
    fileprivate var json: JSON {
        .object([
            "thermal_status": JSON(thermalStatus),
            "battery_temperature_c": .null,
            "battery_percent": JSON(batteryPercent),
            "charging": JSON(charging),
            "battery_saver": JSON(batterySaver),
            "screen_on": JSON(screenOn),
            "frequencies_khz": .list([])
        ])
    }
}

private func utc(_ date: Date) -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(secondsFromGMT: 0)
    formatter.dateFormat = "yyyy-MM-dd'T'HH:mm:ss'+00:00'"
    return formatter.string(from: date)
}
