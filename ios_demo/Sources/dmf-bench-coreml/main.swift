import DMFClassifier
import Foundation
#if canImport(CoreML)
import DMFCoreML

private let runtime: Command.Runtime? = Command.Runtime(
    device: Device(app: "\(Command.name) 0.1.0"),
    compile: { try await CompiledModel.compile($0) }
)
#else
private let runtime: Command.Runtime? = nil
#endif

private let command = Command(
    runtime: runtime,
    output: { print($0) },
    complain: { FileHandle.standardError.write(Data("\($0)\n".utf8)) }
)
exit(await command.run(Array(CommandLine.arguments.dropFirst())))
