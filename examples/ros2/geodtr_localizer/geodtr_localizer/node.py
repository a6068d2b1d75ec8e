"""A ROS 2 node around geodtr.runtime.ros: images in; positions, poses and diagnostics out.

Topics in: `image` (Image, or CompressedImage with the parameter compressed), `prior` (NavSatFix). Topics out: `fix`
(NavSatFix), `pose` (PoseWithCovarianceStamped), `/diagnostics`.
"""

import sys

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, NavSatFix, NavSatStatus
from std_msgs.msg import Header

from geodtr import UserError
from geodtr.runtime.ros.core import Core
from geodtr.runtime.ros.messages import as_ros
from geodtr.runtime.ros.parameters import Parameters, defaults

NEWEST = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
"""The newest image alone: those that come while one is localised are dropped."""


def _status(level, **fields):
    return DiagnosticStatus(level=bytes([level]), **fields)  # rclpy has ROS's type byte as bytes


TYPES = {
    each.__name__: each
    for each in (
        *(Time, Header, NavSatFix, NavSatStatus, DiagnosticArray, KeyValue),
        *(Point, Pose, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion),
    )
} | {"DiagnosticStatus": _status}


class Localizer(Node):
    """Publishes what the core answers."""

    def __init__(self):
        super().__init__("geodtr_localizer")
        values = {name: self.declare_parameter(name, default).value for name, default in defaults().items()}
        self._core = Core(Parameters.of(values))
        self._fix = self.create_publisher(NavSatFix, "fix", 10)
        self._pose = self.create_publisher(PoseWithCovarianceStamped, "pose", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        image = CompressedImage if values["compressed"] else Image
        self.create_subscription(image, "image", self._take, NEWEST)
        self.create_subscription(NavSatFix, "prior", self._core.prior, NEWEST)

    def _take(self, message):
        answer = self._core.image(message)
        for publisher, content in (
            (self._fix, answer.fix),
            (self._pose, answer.pose),
            (self._diagnostics, answer.diagnostics),
        ):
            if content is not None:
                publisher.publish(as_ros(content, TYPES))

    def destroy_node(self):
        self._core.close()
        super().destroy_node()


def main(arguments=None):
    rclpy.init(args=arguments)
    try:
        node = Localizer()
    except UserError as error:
        rclpy.shutdown()
        sys.exit(f"geodtr_localizer: {error}")
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
