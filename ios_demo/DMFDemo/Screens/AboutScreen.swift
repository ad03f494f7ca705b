import DMFClassifier
import SwiftUI

/// What the chosen package is, where it came from and how far it was checked.
struct AboutScreen: View {
    @ObservedObject var library: Library
    let demo: Demo
    @State private var told: [Fact] = []

    var body: some View {
        NavigationStack {
            List(told) { fact in
                VStack(alignment: .leading) {
                    Text(fact.title).font(.headline)
                    Text(fact.value).foregroundColor(fact.isBad ? .red : .primary).textSelection(.enabled)
                }
            }
            .navigationTitle("About this model")
            .navigationBarTitleDisplayMode(.inline)
        }
        .task(id: library.folder) { await tell(library.folder) }
        .onAppear { Task { await tell(library.folder) } } // there may be a new verdict
    }

    private func tell(_ folder: URL?) async {
        guard let folder else {
            told = []
            return
        }
        let (verdicts, device) = (demo.verdicts, demo.device.description)
        told = await Task.detached {
            do {
                return facts(of: try ModelPackage(contentsOf: folder), verdicts, device)
            } catch {
                return [Fact(title: "This package can’t be used", value: error.oneLine, isBad: true)]
            }
        }.value
    }
}
