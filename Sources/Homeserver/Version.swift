/// Which program this is.
public enum Version {
    public static let name = "Roost"
    public static let number = "0.1.0"
}
