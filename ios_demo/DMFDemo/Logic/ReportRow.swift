import DMFClassifier
import Foundation

/// A report as a row of a table.
struct ReportRow: Identifiable, Equatable {
    static let columns = ["input", "on", "p50", "p90", "p99", "load", "peak MiB", "is"]

    struct Cell: Identifiable, Equatable {
        let id: Int
        let text: String
    }

    let cells: [Cell]

    var id: String { cells[0].text + cells[1].text }

    init(_ report: LatencyReport) {
        let mebibytes = Double(report.peakMemoryBytes) / 0x1p20
        let figures = [report.p50Ms, report.p90Ms, report.p99Ms, report.coldLoadMs, mebibytes]
        let texts = [resolution(report.manifest.input), report.runtime.computeUnits.rawValue]
            + figures.map { String(format: "%.1f", $0) }
            + [report.invalidBecause.isEmpty ? "valid" : "not valid"]
        cells = texts.enumerated().map { Cell(id: $0, text: $1) }
    }
}
