"""What one scrape says."""

PREFIX = "adaptive_rate_limiter_"


class Scrape:
    """The samples of one scrape, by name (without the prefix) and labels."""

    def __init__(self, registry):
        self.samples = {}
        for family in registry.collect():
            for sample in family.samples:
                key = (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} comes twice"
                self.samples[key] = sample.value

    def one(self, name, **labels):
        """The sum of all samples of this name that have these labels."""
        return sum(self.by(name, **labels).values())

    def by(self, name, *wanted, **labels):
        """Sums by the values of the labels that are wanted."""
        sums = {}
        for (sample, its), value in self.samples.items():
            if sample == name and labels.items() <= dict(its).items():
                key = tuple(dict(its)[label] for label in wanted)
                key = key[0] if len(key) == 1 else key
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def label_values(self, label):
        return {value for _, labels in self.samples for name, value in labels if name == label}
