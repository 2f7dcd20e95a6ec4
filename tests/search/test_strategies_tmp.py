from nos_search.testing.strategy import StrategyCase
from nos_search.strategy import *
from nos_search.space import *
class TestRandom(StrategyCase):
    def make(self, space, seed): return RandomStrategy(space, seed=seed)
class TestPPO(StrategyCase):
    def make(self, space, seed): return ControllerStrategy(space, seed=seed, hidden=16, embedding=8)
class TestTRPO(StrategyCase):
    def make(self, space, seed): return ControllerStrategy(space, seed=seed, hidden=16, embedding=8,algorithm='trpo')
class TestRE(StrategyCase):
    def make(self, space, seed): return ControllerStrategy(space, seed=seed, hidden=16, embedding=8,algorithm='reinforce')
class TestEvo(StrategyCase):
    def make(self, space, seed): return EvolutionStrategy(space, seed=seed, population=12, tournament=3, crossover=0.3)
class TestOptuna(StrategyCase):
    def make(self, space, seed): return OptunaStrategy(space, seed=seed, startup=6)
