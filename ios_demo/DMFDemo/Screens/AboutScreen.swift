import DMFClassifier
import SwiftUI

/// What the chosen package, or function of it, is, where it came from and how far it was checked.
struct AboutScreen: View {
    @ObservedObject var library: Library
    let demo: Demo
    @State private var told: [Fact] = []

    var body: some View {
        NavigationStack {
            VStack {
                ResolutionPicker(library: library)
                List(told) { fact in
                    VStack(alignment: .leading) {
                        Text(fact.title).font(.headline)
                        Text(fact.value).foregroundColor(fact.isBad ? .red : .primary).textSelection(.enabled)
                    }
                }
            }
            .navigationTitle("About this model")
            .navigationBarTitleDisplayMode(.inline)
        }
        .task(id: library.selection) { await tell(library.selection) }
        .onAppear { Task { await tell(library.selection) } } // there may be a new verdict
    }

    private func tell(_ selection: Selection?) async {
        guard let selection else {
            told = []
            return
        }
        let (verdicts, device) = (demo.verdicts, demo.device.description)
        told = await Task.detached {
            do {
                let package = try ModelPackage(contentsOf: selection.folder)
                return facts(of: try package.functions(named: selection.function)[0], verdicts, device)
            } catch {
                return [Fact(title: "This package can’t be used", value: error.oneLine, isBad: true)]
            }
        }.value
    }
}
