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

    /// PredictorError: Core ML refuses it, or is too old for an artifact of several functions.
    public static func compile(_ package: ModelPackage) async throws -> CompiledModel {
        _ = try MLModelConfiguration(.all, package.manifest.input.function) // it would not say that it is too old
        do {
            return CompiledModel(package, at: try await MLModel.compileModel(at: package.artifact))
        } catch {
            throw PredictorError(cannot: "compile \(package.manifest.artifact)", because: error)
        }
    }

    public func open(on computeUnits: ComputeUnits) throws -> any Predictor {
        do {
            let configuration = try MLModelConfiguration(computeUnits, package.manifest.input.function)
            let model = try MLModel(contentsOf: location, configuration: configuration)
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
            return try await ComputePlan(
                ofModelAt: location,
                function: package.manifest.input.function,
                on: computeUnits,
                modules: package.golden?.modules ?? []
            )
        } catch {
            throw PredictorError(cannot: "plan it on \(computeUnits.rawValue)", because: error)
        }
    }
}

extension MLModelConfiguration {
    /// PredictorError: the system is too old to tell functions apart.
    convenience init(_ computeUnits: ComputeUnits, _ function: String?) throws {
        self.init()
        switch computeUnits {
        case .all: self.computeUnits = .all
        case .cpuAndNeuralEngine: self.computeUnits = .cpuAndNeuralEngine
        case .cpuAndGPU: self.computeUnits = .cpuAndGPU
        case .cpuOnly: self.computeUnits = .cpuOnly
        }
        guard let function else { return } // the only one, which any system finds
        #if compiler(>=6.0) // Xcode 16's, whose SDKs are the first to know functions
        if #available(iOS 18.0, macOS 15.0, *) {
            functionName = function
            return
        }
        #endif
        let needed = "iOS 18 or macOS 15, and to be built by Xcode 16"
        throw PredictorError("several functions need \(needed); this is \(Device.os); export with one --image-size")
    }
}
#endif
