"""The Bitcraze Crazyflie 2.1 quadrotor, over CRTP."""
