import DMFClassifier

/// The longer side, in px, to which a picture is decoded for a model that takes `input`.
///
/// It is the picture's own, but for one of more than 16 megapixels: that is halved until it is so small, as long as its
/// shorter side keeps 4 x what the model resizes it to.
func decodedSide(width: Int, height: Int, _ input: InputSpec) -> Int {
    let (shorter, longer) = (min(width, height), max(width, height))
    let resized = input.resized(width: width, height: height)
    var divisor = 1
    while width * height / (divisor * divisor) > 16_000_000,
          shorter / (2 * divisor) >= 4 * min(resized.width, resized.height) {
        divisor *= 2
    }
    return longer / divisor
}
