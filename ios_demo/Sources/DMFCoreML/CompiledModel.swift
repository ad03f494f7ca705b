#if canImport(CoreML)
import CoreML
import DMFClassifier
import Foundation

/// A package's `.mlpackage` as Core ML loads it: compiled, as Xcode does it for an app, into a temporary folder.
public final class CompiledModel: OpenableModel {
    private let package: ModelPackage
    private let location: URL

    private init(_ package: ModelPackage, at location: URL) {
        self.package = package
        self.location = location
    }

    deinit {
        try? FileManager.default.removeItem(at: location)
    }

    /// PredictorError: Core ML refuses it.
    public static func compile(_ package: ModelPackage) async throws -> CompiledModel {
        do {
            return CompiledModel(package, at: try await MLModel.compileModel(at: package.artifact))
        } catch {
            throw PredictorError(cannot: "compile \(package.manifest.artifact)", because: error)
        }
    }

    public func open(on computeUnits: ComputeUnits) throws -> any Predictor {
        do {
            let model = try MLModel(contentsOf: location, configuration: MLModelConfiguration(computeUnits))
            return try CoreMLPredictor(model, package.manifest, on: computeUnits)
        } catch let error as PredictorError {
            throw error
        } catch {
            throw PredictorError(cannot: "open it on \(computeUnits.rawValue)", because: error)
        }
    }

    public func computePlan(on computeUnits: ComputeUnits) async throws -> ComputePlan? {
        guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
        do {
            let modules = package.golden?.modules ?? []
            return try await ComputePlan(ofModelAt: location, on: computeUnits, modules: modules)
        } catch {
            throw PredictorError(cannot: "plan it on \(computeUnits.rawValue)", because: error)
        }
    }
}

extension MLModelConfiguration {
    convenience init(_ computeUnits: ComputeUnits) {
        self.init()
        switch computeUnits {
        case .all: self.computeUnits = .all
        case .cpuAndNeuralEngine: self.computeUnits = .cpuAndNeuralEngine
        case .cpuAndGPU: self.computeUnits = .cpuAndGPU
        case .cpuOnly: self.computeUnits = .cpuOnly
        }
    }
}
#endif
